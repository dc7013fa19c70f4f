package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const docsFile = "../../docs/configuration.md"

const docsHead = `# Configuration

<!-- Generated from internal/config/keys.go: go test ./internal/config -run TestDocs -update -->

walpost reads one YAML file: the one that ` + "`-c FILE`" + ` names, else the one that ` + "`WALPOST_CONFIG`" + ` names, else ` + "`/etc/walpost/walpost.yaml`" + `. Every key has a default but the two addresses, so this is a whole configuration:

` + "```yaml" + `
postgres: {url: "postgres://walpost@db.example/app?sslmode=verify-full"}
kafka: {brokers: ["kafka-1.example:9092", "kafka-2.example:9092"]}
` + "```" + `

[examples/walpost.yaml](../examples/walpost.yaml) is one to start from. ` + "`walpost validate -c FILE`" + ` checks a file without connecting to anything.

- **Strict.** Unknown keys, keys that stand twice and values of the wrong type are errors. All of a file's problems are reported at once, with line and column, and the exit code is 2.
- **Variables.** ` + "`${VAR}`" + ` and ` + "`${VAR:-default}`" + ` are replaced inside values, after the YAML is parsed, so a variable can't change the structure of the file. A variable that is not set and has no default is an error; the default also stands in for an empty one. ` + "`$$`" + ` is a dollar sign.
- **Secrets.** A secret is a text, or ` + "`{file: path}`" + ` or ` + "`{env: NAME}`" + `, which are read again at each connect. No secret is ever printed, and neither is a password inside ` + "`postgres.url`" + `.
- Sizes take ` + "`KiB`, `MiB`, `GiB`" + ` (powers of 1024) and ` + "`KB`, `MB`, `GB`" + ` (powers of 1000). Durations are written like ` + "`20s`, `2m30s`, `1h`" + `.
- Anchors, aliases, tags and merge keys of YAML are not accepted.

`

// markdown writes the documentation of all keys.
func markdown(all []key) string {
	var b strings.Builder
	b.WriteString(docsHead)
	section := ""
	for _, k := range all {
		if top, _, nested := strings.Cut(k.path, "."); nested && top != section {
			fmt.Fprintf(&b, "## %s\n\n", top)
			section = top
		}
		fmt.Fprintf(&b, "%s `%s`\n\n%s\n\n- Accepts: %s\n- %s\n\n", heading(k), k.path, k.doc, k.accepts, defaultLine(k))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func heading(k key) string {
	if strings.Contains(k.path, ".") {
		return "###"
	}
	return "##"
}

func defaultLine(k key) string {
	switch {
	case k.required:
		return "**Required.**"
	case k.def == "":
		return "Default: none"
	}
	return "Default: `" + strings.ReplaceAll(k.def, "<pipeline_>", "<pipeline, - as _>") + "`"
}

func TestDocsAreCurrent(t *testing.T) {
	want := markdown(keys(testEnviron))
	if updateFlag() {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil { // #nosec G306 -- a document
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/configuration.md differs from the table of keys; run this test with -update (-want +got):\n%s", diff)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	for _, k := range keys(testEnviron) {
		if !strings.HasSuffix(k.doc, ".") || k.accepts == "" {
			t.Errorf("%s: doc %q, accepts %q", k.path, k.doc, k.accepts)
		}
	}
}
