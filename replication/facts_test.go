package replication

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestQuoting(t *testing.T) {
	for _, tc := range []struct{ in, literal, identifier, option string }{
		{`orders`, `'orders'`, `"orders"`, `'orders'`},
		{``, `''`, `""`, `''`},
		{`it's`, `'it''s'`, `"it's"`, `'it''s'`},
		{`'; DROP TABLE x; --`, `'''; DROP TABLE x; --'`, `"'; DROP TABLE x; --"`, `'''; DROP TABLE x; --'`},
		{`a"b`, `'a"b'`, `"a""b"`, `'a"b'`},
		{`a\'b`, ` E'a\\''b'`, `"a\'b"`, `'a\''b'`},
		{`\`, ` E'\\'`, `"\"`, `'\'`},
	} {
		if got := quoteLiteral(tc.in); got != tc.literal {
			t.Errorf("quoteLiteral(%s) = %s, want %s", tc.in, got, tc.literal)
		}
		if got := quoteIdentifier(tc.in); got != tc.identifier {
			t.Errorf("quoteIdentifier(%s) = %s, want %s", tc.in, got, tc.identifier)
		}
		if got := quoteOption(tc.in); got != tc.option {
			t.Errorf("quoteOption(%s) = %s, want %s", tc.in, got, tc.option)
		}
	}
}

func TestHostileNamesStayNames(t *testing.T) {
	s := newServer(t)
	conn, _ := dial(t, s, func(c *Config) { c.Publication = `x' OR pubname <> '\` })
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, q := range s.asked() {
		if strings.Contains(q, `pubname =  E'x'' OR pubname <> ''\\'`) {
			seen++
		}
	}
	if seen != 2 {
		t.Fatalf("%d queries name the publication: %q", seen, s.asked())
	}
}

func TestSlotNames(t *testing.T) {
	for _, good := range []string{"a", "walpost_orders_2", strings.Repeat("x", 63)} {
		if err := checkSlotName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "A", "a-b", "a b", `a"`, "a'", "ä", "a\n", "\na", "a;b", strings.Repeat("x", 64)} {
		err := checkSlotName(bad)
		wantCondition(t, err, "slot_missing")
		if retryable(err) {
			t.Errorf("%q may be tried again", bad)
		}
	}
}

func TestCovers(t *testing.T) {
	p := Publication{Insert: true, Tables: []PublishedTable{
		{Schema: "public", Table: "outbox", OID: 1},
		{Schema: "public", Table: "filtered", OID: 2, RowFilter: "(id > 3)"},
	}}
	for name, want := range map[string]bool{
		"public.outbox": true, "other.outbox": false, "public.orders": false, "public.Outbox": false, "public.filtered": false,
	} {
		schema, table, _ := strings.Cut(name, ".")
		if got := p.Covers(schema, table); got != want {
			t.Errorf("Covers(%s) = %t", name, got)
		}
	}
	p.Insert = false
	if p.Covers("public", "outbox") {
		t.Error("covered without inserts")
	}
}

func TestFingerprint(t *testing.T) {
	published := func(change func(*Publication)) string {
		p := &Publication{Name: "p", Insert: true, ViaRoot: true, Tables: []PublishedTable{
			{Schema: "public", Table: "a", OID: 1, Columns: "id"}, {Schema: "public", Table: "b", OID: 2},
		}}
		change(p)
		return p.Fingerprint()
	}
	same := published(func(*Publication) {})
	// Written down in checkpoint records: another value is another publication
	// to every relay that runs.
	if same != "13b851afea72474e" {
		t.Errorf("fingerprint = %s", same)
	}
	for name, change := range map[string]func(*Publication){
		"columns":    func(p *Publication) { p.Tables[0].Columns = "id,payload" },
		"all tables": func(p *Publication) { p.AllTables = true },
	} {
		if published(change) != same {
			t.Errorf("%s changes it", name)
		}
	}
	seen := map[string]string{same: "nothing"}
	for name, change := range map[string]func(*Publication){
		"name":                 func(p *Publication) { p.Name = "q" },
		"insert":               func(p *Publication) { p.Insert = false },
		"via root":             func(p *Publication) { p.ViaRoot = false },
		"altered and put back": func(p *Publication) { p.Rows = "16390:742" },
		"dropped":              func(p *Publication) { p.Tables = p.Tables[:1] },
		"added": func(p *Publication) {
			p.Tables = append(p.Tables, PublishedTable{Schema: "public", Table: "c", OID: 3})
		},
		"schema":   func(p *Publication) { p.Tables[0].Schema = "other" },
		"table":    func(p *Publication) { p.Tables[0].Table = "c" },
		"recreate": func(p *Publication) { p.Tables[0].OID = 9 },
		"filter":   func(p *Publication) { p.Tables[0].RowFilter = "(id > 3)" },
		"border":   func(p *Publication) { p.Tables[0].Schema, p.Tables[0].Table = `public"."a`, "" },
	} {
		f := published(change)
		if other, dup := seen[f]; dup {
			t.Errorf("%s and %s give the same", name, other)
		}
		seen[f] = name
	}
}

func TestLSN(t *testing.T) {
	for _, lsn := range []uint64{0, 1, 0x16B3748, 0x1_00000000, 1<<64 - 1} {
		if got, err := ParseLSN(FormatLSN(lsn)); err != nil || got != lsn {
			t.Errorf("%#x -> %s -> %#x, %v", lsn, FormatLSN(lsn), got, err)
		}
	}
	if FormatLSN(0x1_016B3748) != "1/16B3748" {
		t.Errorf("FormatLSN = %s", FormatLSN(0x1_016B3748))
	}
	if _, err := ParseLSN("nonsense"); err == nil {
		t.Error("nonsense was parsed")
	}
}

func TestDefaults(t *testing.T) {
	c := Config{}.withDefaults()
	if c.ConnectTimeout <= 0 || c.SenderTimeout <= 0 || c.StatusInterval <= 0 || c.BatchRows <= 0 {
		t.Errorf("defaults = %+v", c)
	}
	if 3*c.StatusInterval > c.SenderTimeout {
		t.Errorf("status updates every %s are too rare for a server that waits %s", c.StatusInterval, c.SenderTimeout)
	}
}

func TestClassify(t *testing.T) {
	if classify("op", nil) != nil {
		t.Error("no error became one")
	}
	for code, want := range map[string]struct {
		condition string
		retry     bool
	}{
		"28000": {"postgres_auth_failed", true},
		"28P01": {"postgres_auth_failed", true},
		"42501": {"postgres_auth_failed", true},
		"3D000": {"postgres_unreachable", true},
		"53300": {"postgres_unreachable", true},
		"55006": {"slot_busy", true},
		"42704": {"publication_missing", false},
		"55000": {"slot_lost", false},
		"XX001": {"decode_failed", false},
		"XX002": {"decode_failed", false},
	} {
		cause := &pgconn.PgError{Code: code, Message: "m"}
		err := classify("op", fmt.Errorf("wrapped: %w", cause))
		wantCondition(t, err, want.condition)
		if retryable(err) != want.retry || !errors.Is(err, cause) {
			t.Errorf("%s: retryable %t, %v", code, retryable(err), err)
		}
	}
	wantCondition(t, classify("op", io.ErrUnexpectedEOF), "postgres_unreachable")
	// What is known already stays what it is, and gains the operation.
	inner := decodeError(1, io.ErrUnexpectedEOF)
	err := classify("outer", inner)
	wantCondition(t, err, "decode_failed")
	if !errors.Is(err, inner) || !strings.HasPrefix(err.Error(), "outer: ") {
		t.Errorf("error = %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || e.Remedy() == "" {
		t.Errorf("no remedy in %v", err)
	}
}
