package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holder has the configuration in an unexported field, where fmt can call no
// method of it.
type holder struct{ config Config }

func TestNothingPrintsASecret(t *testing.T) {
	urls := []string{
		"postgres://relay:hunter2@db/app?password=hunter2",
		"host=db user=relay password='hunter2' dbname=app",
	}
	for _, url := range urls {
		c := mustParse(t, fmt.Sprintf("postgres: {url: %q, password: \"${PASSWORD}\"}\nkafka: {brokers: [\"k:9092\"]}\n", url))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			for _, v := range []any{c, *c, holder{*c}, &c.Postgres, c.Postgres.URL, c.Postgres.Password} {
				checkRedacted(t, verb, fmt.Sprintf(verb, v))
			}
		}
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		checkRedacted(t, "json", string(raw))
		var b bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
			slog.New(handler).Info("m", "config", c, "url", c.Postgres.URL, "password", c.Postgres.Password)
		}
		checkRedacted(t, "slog", b.String())
		if !strings.Contains(c.String(), "postgres://relay@db/app") || !strings.Contains(c.String(), redacted) {
			t.Errorf("String() hides too much: %s", c)
		}
	}
}

func checkRedacted(t *testing.T, how, printed string) {
	t.Helper()
	if strings.Contains(printed, "hunter2") || strings.Contains(printed, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("%s shows the password: %s", how, printed)
	}
}

func TestSecretIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	environment := map[string]string{}
	environ := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	parse := func(source string) Secret {
		c, err := Parse("f.yaml", []byte("postgres: {url: \"postgres://db/app\", password: "+source+"}\nkafka: {brokers: [\"k:9092\"]}\n"), environ)
		if err != nil {
			t.Fatal(err)
		}
		return c.Postgres.Password
	}
	for _, tc := range []struct {
		secret Secret
		put    func(string)
	}{
		{parse("{file: " + file + "}"), func(s string) {
			if err := os.WriteFile(file, []byte(s+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{parse("{env: PW}"), func(s string) { environment["PW"] = s }},
	} {
		var remedied interface{ Remedy() string }
		if _, err := tc.secret.Read(); !errors.As(err, &remedied) || remedied.Remedy() == "" {
			t.Errorf("before it exists: %v", err)
		}
		for _, want := range []string{"one", "two "} {
			tc.put(want)
			if got, err := tc.secret.Read(); got != want || err != nil {
				t.Errorf("Read() = %q, %v; want %q", got, err, want)
			}
		}
	}
}

func TestSecretNotConfigured(t *testing.T) {
	c := mustParse(t, bothAddresses)
	text, err := c.Postgres.Password.Read()
	if c.Postgres.Password.Configured() || text != "" || err != nil || c.Postgres.Password.String() != "" {
		t.Errorf("configured %v, %q, %v", c.Postgres.Password.Configured(), text, err)
	}
}

func TestParseDSN(t *testing.T) {
	for _, tc := range []struct {
		text, shown, user, database string
	}{
		{"postgres://u@db/app", "postgres://u@db/app", "u", "app"},
		{"postgresql://u:p%40ss@db:6432/app?sslmode=require", "postgres://u@db:6432/app", "u", "app"},
		{"postgres://u:a:b@db/app", "postgres://u@db/app", "u", "app"},
		{"postgres://u:p@h1:1,h2:2/app", "postgres://u@h1:1,h2:2/app", "u", "app"},
		{"postgres://[::1]:5432/app", "postgres://[::1]:5432/app", "", "app"},
		{"postgres:///app?host=/run/postgresql&user=u", "postgres://u@/run/postgresql/app", "u", "app"},
		{`host = db port=6432 user='u s' password='a\'b c' dbname=app`, "postgres://u s@db:6432/app", "u s", "app"},
		{"host=/run/postgresql dbname=app", "postgres:///run/postgresql/app", "", "app"},
		{"postgres:///app?host=h1,h2&port=1,2&user=u&target_session_attrs=primary", "postgres://u@h1:1,h2:2/app", "u", "app"},
		{"host=h1,h2 port=1,2 user=u password=hunter2 dbname=app", "postgres://u@h1:1,h2:2/app", "u", "app"},
		{"host=h1,h2 port=6432 dbname=app target_session_attrs=read-write", "postgres://h1:6432,h2:6432/app", "", "app"},
		{"host=10.0.0.1,10.0.0.2 port=,6432 dbname=app", "postgres://10.0.0.1,10.0.0.2:6432/app", "", "app"},
		{"service=outbox", "postgres://service=outbox/", "", ""},
	} {
		d, err := ParseDSN(tc.text)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		if d.String() != tc.shown || d.User() != tc.user || d.Database() != tc.database || d.Reveal() != tc.text {
			t.Errorf("%s: shown %q, user %q, database %q", tc.text, d, d.User(), d.Database())
		}
	}
}

func TestParseDSNRefuses(t *testing.T) {
	for text, want := range map[string]error{
		"postgres://u:hunter2@db":               errDSNDatabase,
		"postgres://u:hunter2@db/":              errDSNDatabase,
		"host=db user=u":                        errDSNDatabase,
		"":                                      errDSNForm,
		"db.example":                            errDSNForm,
		"http://u:hunter2@db":                   errDSNForm,
		"postgres://":                           errDSNHost,
		"postgres://u:hunter2@/app":             errDSNHost,
		"hostaddr=10.0.0.1 dbname=app":          errDSNHost, // pgx knows no hostaddr
		"user=u password=hunter2":               errDSNHost,
		"postgres://u:hunter2#@db/app":          errDSNEncoding,
		"postgres://u:hunter2/@db/app":          errDSNEncoding,
		"postgres://u:12/hunter2@db/app":        errDSNEncoding,
		"postgres://u:hunter2%zz@db/app":        errDSNEncoding,
		"postgres://u:hun ter2@db/app":          errDSNEncoding,
		"postgres://u@db:port/app":              errDSNEncoding,
		"postgres://u@db:0/app":                 errDSNEncoding,
		"postgres://[::1/app":                   errDSNEncoding,
		"postgres://db/app?a;b":                 errDSNEncoding,
		"host=h1,h2,h3 port=1,2 dbname=app":     errDSNPorts,
		"postgres:///app?host=h1,h2&port=1,2,3": errDSNPorts,
		"host=db password='hunter2":             errDSNQuote,
		"host=db pass word=hunter2":             errDSNQuote,
		"host=db password=x hunter2":            errDSNQuote,
		"host=db 'hunter2'=password":            errDSNQuote,
		"host=db password=x =hunter2":           errDSNQuote,
		"postgres://u:hunter2@db,:1/app":        errDSNEncoding,
		"postgres://u:hunter2?@db/app":          errDSNEncoding,
		"postgres://u:hunter2@db/app@old":       errDSNEncoding,
	} {
		if _, err := ParseDSN(text); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
}

func TestParseTable(t *testing.T) {
	for text, want := range map[string]Table{
		"public.outbox":                       {"public", "outbox"},
		"Public.OutBox":                       {"public", "outbox"},
		`"My Schema"."Out""Box"`:              {"My Schema", `Out"Box`},
		`a."b.c"`:                             {"a", "b.c"},
		`_x1$.été`:                            {"_x1$", "été"},
		`"` + strings.Repeat("s", 63) + `".t`: {strings.Repeat("s", 63), "t"},
	} {
		got, err := ParseTable(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseTable(got.String()); err != nil || again != got {
			t.Errorf("%s: its text %s gives %v, %v", text, got, again, err)
		}
	}
	for text, want := range map[string]error{
		"":                             errTableForm,
		"outbox":                       errTableForm,
		"a.b.c":                        errTableForm,
		"a.":                           errTableForm,
		".b":                           errTableForm,
		"a.1b":                         errTableForm,
		"a.$b":                         errTableForm,
		"a. b":                         errTableForm,
		"a.b;drop":                     errTableForm,
		`a."b`:                         errTableQuotes,
		`a.b"c"`:                       errTableQuotes,
		`a."b"c`:                       errTableForm,
		`"".b`:                         errTableLength,
		strings.Repeat("s", 64) + ".t": errTableLength,
		"\"a\x00b\".t":                 errTableLength,
	} {
		if got, err := ParseTable(text); !errors.Is(err, want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
}
