package mapping

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/walpost/walpost/outbox"
)

const (
	source = "7301234567890123456/trainings/open_trainings/0"
	id1    = "3f0e4c1a-7d0c-4b53-9a53-0d6a2a1c9f11"

	oidUUID = 2950
)

func defaultTable() Table {
	return Table{
		Schema: "public", Name: "outbox",
		Columns: Columns{ID: "id", AggregateType: "aggregatetype", AggregateID: "aggregateid", Type: "type", Payload: "payload"},
		Topic:   "outbox.event.{aggregate_type}",
	}
}

func columns(payloadOID uint32) []Column {
	return []Column{{"id", oidUUID}, {"aggregatetype", oidVarchar}, {"aggregateid", oidVarchar}, {"type", oidVarchar}, {"payload", payloadOID}}
}

// row takes strings, nil for NULL, in the order of columns.
func row(values ...any) [][]byte {
	r := make([][]byte, len(values))
	for i, v := range values {
		if v != nil {
			r[i] = []byte(v.(string))
		}
	}
	return r
}

func newPlan(t testing.TB, table Table, payloadOID uint32) *Plan {
	t.Helper()
	mapper, err := New(Config{Source: source, Tables: []Table{table}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := mapper.Plan(table.Schema, table.Name, columns(payloadOID))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func position() outbox.Position {
	return outbox.Position{Generation: 1, Commit: 0x16B3748, Index: 2}
}

func headersOf(id string) []outbox.Header {
	return []outbox.Header{
		{Key: []byte("id"), Value: []byte(id)},
		{Key: []byte("walpost-source"), Value: []byte(source)},
		{Key: []byte("walpost-position"), Value: []byte("00000001-00000000016b3748-00000002")},
	}
}

func TestMap(t *testing.T) {
	fixed := defaultTable()
	fixed.Topic = "trainings"
	suffixed := defaultTable()
	suffixed.Topic = "a.{aggregate_type}.b"

	// want leaves out what all have: position, id, partition and headers.
	tests := map[string]struct {
		table Table
		oid   uint32
		row   [][]byte
		want  outbox.Message
	}{
		"jsonb": {
			defaultTable(), oidJSONB, row(id1, "order", "order-1", "OrderPlaced", `{"a": 1}`),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("order-1"), HashKey: []byte("order-1"), Value: []byte(`{"a": 1}`)},
		},
		"json keeps its blanks": {
			defaultTable(), oidJSON, row(id1, "order", "k", "", " {\"a\" :1}\n"),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k"), Value: []byte(" {\"a\" :1}\n")},
		},
		"text, beyond ASCII": {
			defaultTable(), oidText, row(id1, "order", "客户-3 🎉", nil, "naïve 🎉"),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("客户-3 🎉"), HashKey: []byte("客户-3 🎉"), Value: []byte("naïve 🎉")},
		},
		"varchar that looks like bytea": {
			defaultTable(), oidVarchar, row(id1, "order", "k", "t", `\x00`),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k"), Value: []byte(`\x00`)},
		},
		"bytea": {
			defaultTable(), oidBytea, row(id1, "order", "k", "t", `\x00ff10`),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k"), Value: []byte{0, 0xff, 0x10}},
		},
		"empty bytea is no tombstone": {
			defaultTable(), oidBytea, row(id1, "order", "k", "t", `\x`),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k"), Value: []byte{}},
		},
		"empty text is no tombstone": {
			defaultTable(), oidText, row(id1, "order", "k", "t", ""),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k"), Value: []byte{}},
		},
		"NULL payload is a tombstone": {
			defaultTable(), oidJSONB, row(id1, "order", "k", "t", nil),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k")},
		},
		"NULL bytea is a tombstone": {
			defaultTable(), oidBytea, row(id1, "order", "k", "t", nil),
			outbox.Message{Topic: "outbox.event.order", Key: []byte("k"), HashKey: []byte("k")},
		},
		"NULL key is hashed by event id": {
			defaultTable(), oidJSONB, row(id1, "order", nil, "t", "1"),
			outbox.Message{Topic: "outbox.event.order", HashKey: []byte(id1), Value: []byte("1")},
		},
		"empty key is a key": {
			defaultTable(), oidJSONB, row(id1, "order", "", "t", "1"),
			outbox.Message{Topic: "outbox.event.order", Key: []byte{}, HashKey: []byte{}, Value: []byte("1")},
		},
		"fixed topic needs no aggregate type": {
			fixed, oidJSONB, row(id1, nil, "k", "t", "1"),
			outbox.Message{Topic: "trainings", Key: []byte("k"), HashKey: []byte("k"), Value: []byte("1")},
		},
		"fixed topic looks at no aggregate type": {
			fixed, oidJSONB, row(id1, "no topic's name", "k", "t", "1"),
			outbox.Message{Topic: "trainings", Key: []byte("k"), HashKey: []byte("k"), Value: []byte("1")},
		},
		"topic with a suffix": {
			suffixed, oidJSONB, row(id1, "order", "k", "t", "1"),
			outbox.Message{Topic: "a.order.b", Key: []byte("k"), HashKey: []byte("k"), Value: []byte("1")},
		},
		"empty aggregate type": {
			defaultTable(), oidJSONB, row(id1, "", "k", "t", "1"),
			outbox.Message{Topic: "outbox.event.", Key: []byte("k"), HashKey: []byte("k"), Value: []byte("1")},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := outbox.Message{Pos: position()}
			if err := newPlan(t, test.table, test.oid).Map(&got, &Arena{}, test.row); err != nil {
				t.Fatal(err)
			}
			want := test.want
			want.Pos, want.ID, want.Partition, want.Headers = position(), []byte(id1), -1, headersOf(id1)
			if diff := cmp.Diff(want, got); diff != "" { // tells nil from empty
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMapFindsColumnsByName(t *testing.T) {
	mapper, err := New(Config{Source: source, Tables: []Table{{
		Schema: "Sales", Name: "Out Box",
		Columns: Columns{ID: "Event ID", AggregateID: "key", Payload: "data"},
		Topic:   "sales",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := mapper.Plan("Sales", "Out Box", []Column{{"other", 23}, {"data", oidText}, {"event id", oidText}, {"Event ID", 20}, {"key", 20}})
	if err != nil {
		t.Fatal(err)
	}
	var m outbox.Message
	if err := plan.Map(&m, &Arena{}, row("7", "payload", "decoy", "42", "1001")); err != nil {
		t.Fatal(err)
	}
	if string(m.ID) != "42" || string(m.Key) != "1001" || string(m.Value) != "payload" || m.Topic != "sales" {
		t.Errorf("got id %s, key %s, value %s, topic %s", m.ID, m.Key, m.Value, m.Topic)
	}
}

func TestMapLeavesTheCallersFieldsAlone(t *testing.T) {
	want := outbox.Message{Seq: 9, Pos: position()}
	got := want
	if err := newPlan(t, defaultTable(), oidJSONB).Map(&got, &Arena{}, row(id1, "order", "k", "t", "1")); err != nil {
		t.Fatal(err)
	}
	if got.Seq != want.Seq || got.Pos != want.Pos || !got.Time.Equal(want.Time) {
		t.Errorf("Map changed them to %d, %s, %s", got.Seq, got.Pos, got.Time)
	}
}

// wantError checks what an operator is told and returns the error's text.
func wantError(t *testing.T, err error, condition string, mention ...string) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want a *mapping.Error", err)
	}
	if e.Condition() != condition || e.Retryable() || e.Remedy() == "" {
		t.Errorf("condition %s, retryable %t, remedy %q; want %s", e.Condition(), e.Retryable(), e.Remedy(), condition)
	}
	for _, part := range mention {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %s", err, part)
		}
	}
	return err.Error()
}

func TestMapRefusesRows(t *testing.T) {
	const at = "00000001-00000000016b3748-00000002"
	bare := defaultTable()
	bare.Topic = "{aggregate_type}"
	tests := map[string]struct {
		table     Table
		oid       uint32
		row       [][]byte
		condition string
		mention   []string
	}{
		"NULL id":               {defaultTable(), oidJSONB, row(nil, "order", "k", "t", "1"), "poison_event", []string{"public.outbox", "column id", "NULL", at}},
		"empty id":              {defaultTable(), oidJSONB, row("", "order", "k", "t", "1"), "poison_event", []string{"column id", "empty", at}},
		"id not UTF-8":          {defaultTable(), oidJSONB, row("caf\xe9", "order", "k", "t", "1"), "poison_event", []string{"column id", "UTF-8", at}},
		"NULL aggregate type":   {defaultTable(), oidJSONB, row(id1, nil, "k", "t", "1"), "poison_event", []string{"public.outbox", "column aggregatetype", id1, "NULL", at}},
		"illegal character":     {defaultTable(), oidJSONB, row(id1, "or der", "k", "t", "1"), "poison_event", []string{"column aggregatetype", id1, "character 3", "6 bytes"}},
		"beyond ASCII":          {defaultTable(), oidJSONB, row(id1, "é", "k", "t", "1"), "poison_event", []string{"character 1", "2 bytes"}},
		"too long":              {defaultTable(), oidJSONB, row(id1, strings.Repeat("a", 237), "k", "t", "1"), "poison_event", []string{"237", "250", "249"}},
		"empty topic":           {bare, oidJSONB, row(id1, "", "k", "t", "1"), "poison_event", []string{"empty"}},
		"reserved topic":        {bare, oidJSONB, row(id1, "..", "k", "t", "1"), "poison_event", []string{"reserves"}},
		"bytea in escape form":  {defaultTable(), oidBytea, row(id1, "order", "k", "t", "abc"), "decode_failed", []string{"public.outbox", "column payload", id1, "hexadecimal", at}},
		"bytea of odd length":   {defaultTable(), oidBytea, row(id1, "order", "k", "t", `\x0`), "decode_failed", []string{"hexadecimal"}},
		"bytea of no hex digit": {defaultTable(), oidBytea, row(id1, "order", "k", "t", `\x0g`), "decode_failed", []string{"hexadecimal"}},
		"empty text of bytea":   {defaultTable(), oidBytea, row(id1, "order", "k", "t", ""), "decode_failed", []string{"hexadecimal"}},
		"too few values":        {defaultTable(), oidJSONB, row(id1, "order", "k", "t"), "decode_failed", []string{"public.outbox", "4 values for 5 columns"}},
		"too many values":       {defaultTable(), oidJSONB, row(id1, "order", "k", "t", "1", "2"), "decode_failed", []string{"6 values for 5 columns"}},
		"no values":             {defaultTable(), oidJSONB, nil, "decode_failed", []string{"0 values"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := outbox.Message{Pos: position()}
			err := newPlan(t, test.table, test.oid).Map(&m, &Arena{}, test.row)
			wantError(t, err, test.condition, test.mention...)
			if diff := cmp.Diff(outbox.Message{Pos: position()}, m); diff != "" {
				t.Errorf("a failed Map changed the message (-before +after):\n%s", diff)
			}
		})
	}
}

func TestErrorsShowNoRowDataButTheID(t *testing.T) {
	const secret = "s3cr3t"
	tests := map[string][][]byte{
		"type":    row(id1, secret+" ", "k", "t", `\x00`),
		"payload": row(id1, "order", "k", "t", secret),
		"hex":     row(id1, "order", "k", "t", `\x00`+secret),
		"key":     row(id1, "or/der", secret, secret, `\x00`),
		"no id":   row(nil, secret, secret, secret, secret),
		"width":   row(secret, secret, secret, secret),
	}
	for name, values := range tests {
		t.Run(name, func(t *testing.T) {
			var m outbox.Message
			err := newPlan(t, defaultTable(), oidBytea).Map(&m, &Arena{}, values)
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestErrorsCutLongIDs(t *testing.T) {
	id := strings.Repeat("i", 1<<20)
	var m outbox.Message
	err := newPlan(t, defaultTable(), oidJSONB).Map(&m, &Arena{}, row(id, nil, "k", "t", "1"))
	if text := wantError(t, err, "poison_event"); len(text) > 500 {
		t.Errorf("the error has %d bytes", len(text))
	}
}

func TestPlanErrors(t *testing.T) {
	mapper, err := New(Config{Source: source, Tables: []Table{defaultTable()}})
	if err != nil {
		t.Fatal(err)
	}
	plan := func(schema, table string, cols []Column) error {
		plan, err := mapper.Plan(schema, table, cols)
		if (plan == nil) == (err == nil) {
			t.Fatalf("Plan = %v, %v", plan, err)
		}
		return err
	}
	t.Run("table is not configured", func(t *testing.T) {
		wantError(t, plan("public", "Outbox", columns(oidJSONB)), "publication_changed", "public.Outbox")
		wantError(t, plan("audit", "outbox", columns(oidJSONB)), "publication_changed", "audit.outbox")
	})
	for i, c := range columns(oidJSONB) {
		t.Run("column is missing: "+c.Name, func(t *testing.T) {
			cols := columns(oidJSONB)
			cols[i].Name += "_old"
			wantError(t, plan("public", "outbox", cols), "decode_failed", "public.outbox", "column "+c.Name+":", c.Name+"_old", fmt.Sprint(c.TypeOID))
		})
	}
	t.Run("no columns", func(t *testing.T) {
		wantError(t, plan("public", "outbox", nil), "decode_failed", "column id")
	})
	t.Run("payload type", func(t *testing.T) {
		wantError(t, plan("public", "outbox", columns(142)), "decode_failed", "public.outbox", "payload", "OID 142", "jsonb (3802)", "json (114)", "text (25)", "varchar (1043)", "bytea (17)")
	})
}

func TestNewErrors(t *testing.T) {
	tests := map[string]struct {
		spoil   func(*Config)
		mention []string
	}{
		"no source":         {func(c *Config) { c.Source = "" }, []string{"source"}},
		"no table":          {func(c *Config) { c.Tables = nil }, []string{"no outbox table"}},
		"no schema":         {func(c *Config) { c.Tables[0].Schema = "" }, []string{`""."outbox"`, "schema"}},
		"no name":           {func(c *Config) { c.Tables[0].Name = "" }, []string{"name"}},
		"table twice":       {func(c *Config) { c.Tables = append(c.Tables, c.Tables[0]) }, []string{`"public"."outbox"`, "twice"}},
		"no id":             {func(c *Config) { c.Tables[0].Columns.ID = "" }, []string{"columns.id"}},
		"no aggregate id":   {func(c *Config) { c.Tables[0].Columns.AggregateID = "" }, []string{"columns.aggregate_id"}},
		"no payload":        {func(c *Config) { c.Tables[0].Columns.Payload = "" }, []string{"columns.payload"}},
		"no aggregate type": {func(c *Config) { c.Tables[0].Columns.AggregateType = "" }, []string{"columns.aggregate_type"}},
		"no topic":          {func(c *Config) { c.Tables[0].Topic = "" }, []string{"topic", "empty"}},
		"topic":             {func(c *Config) { c.Tables[0].Topic = "a b" }, []string{`"a b"`, `' '`}},
		"placeholder":       {func(c *Config) { c.Tables[0].Topic = "a.{type}" }, []string{`"a.{type}"`, "{aggregate_type}"}},
		"double braces":     {func(c *Config) { c.Tables[0].Topic = "a.{{aggregate_type}}" }, []string{"only placeholder"}},
		"unclosed":          {func(c *Config) { c.Tables[0].Topic = "a.{aggregate_type" }, []string{"only placeholder"}},
		"twice":             {func(c *Config) { c.Tables[0].Topic = "{aggregate_type}.{aggregate_type}" }, []string{"twice"}},
		"reserved":          {func(c *Config) { c.Tables[0].Topic = ".." }, []string{"reserves"}},
		"beyond ASCII":      {func(c *Config) { c.Tables[0].Topic = "ordères" }, []string{`'è'`}},
		"long":              {func(c *Config) { c.Tables[0].Topic = strings.Repeat("t", 250) }, []string{"250", "249"}},
		"long prefix":       {func(c *Config) { c.Tables[0].Topic = strings.Repeat("t", 249) + "{aggregate_type}" }, []string{"249"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := Config{Source: source, Tables: []Table{defaultTable()}}
			test.spoil(&config)
			mapper, err := New(config)
			if mapper != nil || err == nil {
				t.Fatalf("New = %v, %v", mapper, err)
			}
			for _, part := range test.mention {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not mention %s", err, part)
				}
			}
		})
	}
}

func TestTopicsAreInternedUpToALimit(t *testing.T) {
	plan := newPlan(t, defaultTable(), oidJSONB)
	var m outbox.Message
	for i := range maxInterned + 5 {
		aggregateType := fmt.Sprintf("t%d", i)
		if err := plan.Map(&m, &Arena{}, row(id1, aggregateType, "k", "t", "1")); err != nil {
			t.Fatal(err)
		}
		if want := "outbox.event." + aggregateType; m.Topic != want {
			t.Fatalf("topic %s, want %s", m.Topic, want)
		}
	}
	if n := len(plan.table.topics.known); n != maxInterned {
		t.Errorf("%d topics are interned, the limit is %d", n, maxInterned)
	}
}

func TestPlansOfATableShareItsTopics(t *testing.T) {
	mapper, err := New(Config{Source: source, Tables: []Table{defaultTable()}})
	if err != nil {
		t.Fatal(err)
	}
	var m outbox.Message
	for range 3 { // the server describes the table anew
		plan, err := mapper.Plan("public", "outbox", columns(oidJSONB))
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Map(&m, &Arena{}, row(id1, "order", "k", "t", "1")); err != nil {
			t.Fatal(err)
		}
		if n := len(plan.table.topics.known); n != 1 {
			t.Errorf("%d topics are known", n)
		}
	}
}

// A batch's messages stay as they were mapped while the arena grows, whatever
// else is mapped or appended.
func TestArenaHandsOutDisjointMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mapper, err := New(Config{Source: source, Tables: []Table{defaultTable()}})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := mapper.Plan("public", "outbox", columns(oidBytea))
		if err != nil {
			t.Fatal(err)
		}
		var a Arena
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 3000), rapid.IntRange(0, maxBytes/3)), 0, 40).Draw(t, "sizes")
			msgs := make([]outbox.Message, len(sizes))
			for i, size := range sizes {
				msgs[i].Pos.Index = uint32(i)
				payload := `\x` + strings.Repeat(hex.EncodeToString([]byte{byte(i)}), size)
				if err := plan.Map(&msgs[i], &a, row(fmt.Sprint(i), "order", "k", "t", payload)); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range msgs { // must not reach the next message's
				_ = append(m.Headers, outbox.Header{})
				_ = append(m.Value, 0xaa)
			}
			for i, m := range msgs {
				if want := bytes.Repeat([]byte{byte(i)}, sizes[i]); m.Value == nil || !bytes.Equal(m.Value, want) {
					t.Fatalf("value %d of %d bytes has changed", i, sizes[i])
				}
				if string(m.Headers[0].Value) != fmt.Sprint(i) || string(m.Headers[2].Value) != m.Pos.String() {
					t.Fatalf("headers of message %d have changed: %q", i, m.Headers)
				}
			}
			a.Reset()
			if cap(a.bytes) > maxBytes || cap(a.headers) > maxHeaders {
				t.Fatalf("the arena keeps %d bytes and %d headers", cap(a.bytes), cap(a.headers))
			}
		}
	})
}

func TestArenaKeepsNoHugePayload(t *testing.T) {
	var a Arena
	var m outbox.Message
	plan := newPlan(t, defaultTable(), oidBytea)
	for _, size := range []int{10, 3 * maxBytes, 10} {
		payload := `\x` + strings.Repeat("ab", size)
		if err := plan.Map(&m, &a, row(id1, "order", "k", "t", payload)); err != nil {
			t.Fatal(err)
		}
		if len(m.Value) != size {
			t.Errorf("value of %d bytes, want %d", len(m.Value), size)
		}
	}
	a.Reset()
	if n := cap(a.bytes); n != minBytes {
		t.Errorf("the arena keeps %d bytes, want one chunk of %d", n, minBytes)
	}
}

func TestArenaResetLetsGoOfTheRows(t *testing.T) {
	var a Arena
	var m outbox.Message
	if err := newPlan(t, defaultTable(), oidJSONB).Map(&m, &a, row(id1, "order", "k", "t", "1")); err != nil {
		t.Fatal(err)
	}
	a.Reset()
	for i, h := range a.headers[:headersEach] {
		if h.Key != nil || h.Value != nil {
			t.Errorf("header %d is still %q", i, h)
		}
	}
}

// batchOf is what the relay does with a batch of n equal rows.
func batchOf(t testing.TB, plan *Plan, n int, values [][]byte) func() {
	t.Helper()
	var a Arena
	msgs := make([]outbox.Message, n)
	return func() {
		a.Reset()
		for i := range msgs {
			msgs[i].Pos = outbox.Position{Generation: 1, Commit: 1, Index: uint32(i)}
			if err := plan.Map(&msgs[i], &a, values); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// flows are the payloads whose cost is asserted and measured.
func flows() map[string]struct {
	oid     uint32
	payload string
} {
	return map[string]struct {
		oid     uint32
		payload string
	}{
		"jsonb": {oidJSONB, `{"offer": "` + strings.Repeat("x", 300) + `"}`},
		"text":  {oidText, strings.Repeat("x", 300)},
		"bytea": {oidBytea, `\x` + strings.Repeat("78", 300)},
	}
}

func TestMapDoesNotAllocate(t *testing.T) {
	for name, flow := range flows() {
		t.Run(name, func(t *testing.T) {
			turn := batchOf(t, newPlan(t, defaultTable(), flow.oid), 1000, row(id1, "order", "order-1", "OrderPlaced", flow.payload))
			turn() // the arena grows over the first batches, and the topic is new
			turn()
			if allocs := testing.AllocsPerRun(100, turn); allocs != 0 {
				t.Errorf("%v allocations per batch of 1000 events", allocs)
			}
		})
	}
}

func BenchmarkMap(b *testing.B) {
	const batch = 1000
	for name, flow := range flows() {
		b.Run(name, func(b *testing.B) {
			turn := batchOf(b, newPlan(b, defaultTable(), flow.oid), batch, row(id1, "order", "order-1", "OrderPlaced", flow.payload))
			b.ReportAllocs()
			for b.Loop() {
				turn()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/event")
		})
	}
}

// FuzzMap: no row makes Map panic, and what it lets through can be published.
func FuzzMap(f *testing.F) {
	f.Add("outbox.event.{aggregate_type}", []byte(id1), []byte("order"), []byte("order-1"), []byte(`\x00ff`), uint8(0), uint32(oidBytea))
	f.Add("{aggregate_type}", []byte("1"), []byte(".."), []byte(""), []byte(`{"a": 1}`), uint8(0), uint32(oidJSONB))
	f.Add("fixed", []byte("1"), []byte("\xff"), []byte("k"), []byte(""), uint8(0b1010), uint32(oidText))
	legal := regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	f.Fuzz(func(t *testing.T, topic string, id, aggregateType, key, payload []byte, nulls uint8, oid uint32) {
		table := defaultTable()
		table.Topic = topic
		mapper, err := New(Config{Source: source, Tables: []Table{table}})
		if err != nil {
			return
		}
		plan, err := mapper.Plan("public", "outbox", columns(oid))
		if err != nil {
			return
		}
		values := [][]byte{id, aggregateType, key, nil, payload}
		for i := range values {
			if nulls>>i&1 == 1 {
				values[i] = nil
			}
		}
		m := outbox.Message{Pos: position()}
		if err := plan.Map(&m, &Arena{}, values); err != nil {
			return
		}
		if !legal.MatchString(m.Topic) || m.Topic == "." || m.Topic == ".." {
			t.Errorf("topic %q", m.Topic)
		}
		if len(m.ID) == 0 || len(m.Headers) != headersEach || m.HashKey == nil || m.Partition != -1 {
			t.Errorf("message %+v", m)
		}
		if (m.Key == nil) != (values[2] == nil) || (m.Value == nil) != (values[4] == nil) {
			t.Errorf("key %q of %q, value %q of %q", m.Key, values[2], m.Value, values[4])
		}
	})
}
