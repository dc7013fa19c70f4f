package migrations

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ordinary() Params {
	return Params{
		Database:    "app",
		Schema:      "public",
		Table:       "outbox",
		Publication: "walpost_outbox",
		Columns:     Columns{ID: "id", AggregateType: "aggregatetype", AggregateID: "aggregateid", Type: "type", Payload: "payload"},
	}
}

// hostile names try to leave every kind of quote.
func hostile() Params {
	return Params{
		Database:    `a"; DROP DATABASE app; --`,
		Role:        `r'$walpost$; DROP ROLE x; --\`,
		Schema:      `My "Schema"`,
		Table:       "line\nbreak'; --",
		Publication: `p$walpost_$'"\'; END $walpost$; --`,
		Columns:     Columns{ID: `id" text); --`, AggregateType: "Aggregate Type", AggregateID: "été", Type: `"`, Payload: "{{.Role}}"},
	}
}

func statements(t *testing.T, p Params) map[string]string {
	t.Helper()
	steps, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{}
	for _, s := range steps {
		bodies[s.Name] = regexp.MustCompile(`(?m)\A(--.*\n)+`).ReplaceAllString(s.SQL, "")
	}
	return bodies
}

func TestRender(t *testing.T) {
	want := map[string]string{
		StepRole: `DO $walpost$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'walpost') THEN
        CREATE ROLE "walpost" LOGIN REPLICATION;
    END IF;
END
$walpost$;

GRANT CONNECT ON DATABASE "app" TO "walpost";
`,
		StepTable: `CREATE TABLE IF NOT EXISTS "public"."outbox" (
    "id" uuid PRIMARY KEY,
    "aggregatetype" varchar(255) NOT NULL,
    "aggregateid" varchar(255) NOT NULL,
    "type" varchar(255) NOT NULL,
    "payload" jsonb,
    headers jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
`,
		StepPublication: `DO $walpost$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'walpost_outbox') THEN
        CREATE PUBLICATION "walpost_outbox" FOR TABLE "public"."outbox"
            WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
END
$walpost$;
`,
	}
	if diff := cmp.Diff(want, statements(t, ordinary())); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
}

func TestRenderHostileNames(t *testing.T) {
	got := statements(t, hostile())
	for step, want := range map[string][]string{
		StepRole: {
			"DO $walpost__$\n",
			`rolname = E'r''$walpost$; DROP ROLE x; --\\') THEN`,
			`CREATE ROLE "r'$walpost$; DROP ROLE x; --\" LOGIN`,
			`ON DATABASE "a""; DROP DATABASE app; --" TO`,
			"\n$walpost__$;\n",
		},
		StepTable: {
			`EXISTS "My ""Schema"""."line` + "\n" + `break'; --" (`,
			`"id"" text); --" uuid`, `"Aggregate Type" varchar`, `"été" varchar`, `"""" varchar`, `"{{.Role}}" jsonb`,
		},
		StepPublication: {
			"DO $walpost__$\n",
			`pubname = E'p$walpost_$''"\\''; END $walpost$; --') THEN`,
			`PUBLICATION "p$walpost_$'""\'; END $walpost$; --" FOR`,
		},
	} {
		for _, w := range want {
			if !strings.Contains(got[step], w) {
				t.Errorf("%s: no %q in:\n%s", step, w, got[step])
			}
		}
		if strings.Count(got[step], "$walpost__$") == 1 {
			t.Errorf("%s: its dollar quote is not closed:\n%s", step, got[step])
		}
	}
}

func TestStepsAreInOrderAndExplained(t *testing.T) {
	steps, err := Render(ordinary())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
		if len(s.Reason) < 200 || strings.Contains(s.Reason, "--") || !strings.HasSuffix(s.SQL, ";\n") || !strings.HasPrefix(s.SQL, "-- ") {
			t.Errorf("%s: reason %q\n%s", s.Name, s.Reason, s.SQL)
		}
	}
	if diff := cmp.Diff([]string{StepRole, StepTable, StepPublication}, names); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// A name in a comment could end it with a line break.
func TestNoNamesInComments(t *testing.T) {
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if _, comment, found := strings.Cut(line, "--"); found && strings.Contains(comment, "{{") {
				t.Errorf("%s: a name in a comment: %s", e.Name(), line)
			}
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Params)
		want   error
	}{
		"no database":          {func(p *Params) { p.Database = "" }, errName},
		"no table":             {func(p *Params) { p.Table = "" }, errName},
		"long schema":          {func(p *Params) { p.Schema = strings.Repeat("é", 32) }, errName},
		"zero byte":            {func(p *Params) { p.Role = "a\x00b" }, errName},
		"two columns the same": {func(p *Params) { p.Columns.Type = "payload" }, errColumn},
		"a column of our own":  {func(p *Params) { p.Columns.Payload = "headers" }, errColumn},
	} {
		p := ordinary()
		tc.change(&p)
		if _, err := Render(p); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}
