package integration

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// TestOnlyWhatWasCommittedIsPublished: a rollback takes its events with it,
// down to a savepoint; deleting a row again does not.
func TestOnlyWhatWasCommittedIsPublished(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.start()

		p.script("begin",
			order(1, "a"), "rollback", "begin",
			order(2, "a"), "savepoint s",
			order(3, "a"), "savepoint inner_s",
			order(4, "a"), "release inner_s", "rollback to s",
			order(5, "a"), "savepoint kept",
			order(6, "a"), "release kept", "commit", "begin",
			order(7, "a"), "delete from outbox where aggregateid = 'a'", "commit",
			order(8, "a"))

		p.awaitExactly(order(2, "a"), order(5, "a"), order(6, "a"), order(7, "a"), order(8, "a"))
	})
}

// script runs statements, and inserts events, on one connection.
func (p *pipeline) script(steps ...any) {
	p.t.Helper()
	for _, step := range steps {
		if e, isEvent := step.(harness.Event); isEvent {
			p.exec(insertEvent, e.ID, e.Key, e.Value)
			continue
		}
		p.exec(step.(string))
	}
}

// TestUpdatesPublishNothing: an outbox is written once; whoever marks rows as
// processed publishes nothing by it.
func TestUpdatesPublishNothing(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.start()
		p.commit(order(1, "a"))
		p.exec("update outbox set type = 'Processed'")
		p.exec("truncate outbox")
		p.commit(order(2, "a"))
		p.awaitExactly(order(1, "a"), order(2, "a"))
	})
}

// TestLargeTransaction: 20,000 rows in one transaction are published in their
// order, and so are the transactions beside it.
func TestLargeTransaction(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		const rows, keys = 20_000, 7
		p := prepared(t, pg)
		p.set("limits.max_in_flight_events", 3000) // less than the transaction has
		p.start()

		ledger := harness.NewLedger()
		var large []harness.Event
		for i := range rows {
			large = append(large, order(i, fmt.Sprint("key-", i%keys)))
		}
		for _, transaction := range [][]harness.Event{{order(rows, "key-1")}, large, {order(rows+1, "key-1")}} {
			p.copy(transaction)
			ledger.Commit(transaction...)
		}

		records := p.await(rows + 2)
		if report := ledger.Verify(records); report.Err() != nil || report.Duplicates > 0 {
			t.Errorf("%s: %v", report, report.Err())
		}
		p.awaitConfirmed(position(t, recordOf(t, records, eventID(rows+1))).Commit)
	})
}

// copy writes events in one transaction, as fast as it can be done.
func (p *pipeline) copy(events []harness.Event) {
	p.t.Helper()
	_, err := p.db.CopyFrom(p.t.Context(), pgx.Identifier{"outbox"}, []string{"id", "aggregatetype", "aggregateid", "type", "payload"},
		pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
			return []any{events[i].ID, "order", events[i].Key, "OrderPlaced", events[i].Value}, nil
		}))
	if err != nil {
		p.t.Fatal(err)
	}
}

// recordOf is the record of an event.
func recordOf(t *testing.T, records []harness.Record, id string) harness.Record {
	t.Helper()
	i := slices.IndexFunc(records, func(r harness.Record) bool { return r.Header(outbox.HeaderID) == id })
	if i < 0 {
		t.Fatalf("event %s is not among %d records", id, len(records))
	}
	return records[i]
}

// payload is what goes into the column, as an SQL literal or expression, and
// what a consumer must find.
type payload struct {
	name string
	sql  string
	want []byte // nil: tombstone
}

// TestPayloads: whatever the column's type, the value is what Postgres prints,
// or a bytea's very bytes, and no default of the database changes that.
func TestPayloads(t *testing.T) {
	text := append(unicode(),
		payload{"null", "null", nil},
		payload{"empty", "''", []byte{}},
		payload{"1 MB", "repeat('0123456789abcdef', 62500)", bytes.Repeat([]byte("0123456789abcdef"), 62_500)},
		payload{"control characters", `E'\x01\x1f\x7f\t\r\n\b\f'`, []byte("\x01\x1f\x7f\t\r\n\b\f")},
		payload{"quotes", `E'\'"\\\\$1'`, []byte(`'"\\$1`)},
	)
	document := []payload{
		{"null", "null", nil},
		{"a JSON null", "'null'", []byte("null")},
		{"an empty string", `'""'`, []byte(`""`)},
		{"beyond the BMP", `'"🎉"'`, []byte(`"🎉"`)},
		{"1 MB", `('"' || repeat('x', 1000000) || '"')::%s`, []byte(`"` + strings.Repeat("x", 1_000_000) + `"`)},
	}
	binary := []payload{
		{"null", "null", nil},
		{"empty", `'\x'`, []byte{}},
		{"zero bytes", `'\x000100ff00'`, []byte{0, 1, 0, 255, 0}},
		{"not UTF-8", `'\xc3280a'`, []byte{0xc3, 0x28, 0x0a}},
		{"looks like hex", `'\x5c78'`, []byte(`\x`)},
		{"1 MB", `decode(repeat('00ff', 500000), 'hex')`, bytes.Repeat([]byte{0, 255}, 500_000)},
	}
	for column, payloads := range map[string][]payload{
		"text":    text,
		"varchar": text,
		"bytea":   binary,
		"json":    append(document, payload{"as it was written", `E'{"b":1 ,\n "a":2,"a":3}'`, []byte("{\"b\":1 ,\n \"a\":2,\"a\":3}")}),
		"jsonb":   append(document, payload{"as it is stored", `'{"b":1 , "a":2,"a":3.10}'`, []byte(`{"a": 3.10, "b": 1}`)}),
	} {
		t.Run(column, func(t *testing.T) {
			onEachRelease(t, func(t *testing.T, pg *harness.PG) { payloadsArrive(t, pg, column, payloads) })
		})
	}
}

func payloadsArrive(t *testing.T, pg *harness.PG, column string, payloads []payload) {
	p := newPipeline(t, pg)
	p.exec(strings.ReplaceAll(outboxTable, "jsonb", column))
	for _, setting := range []string{"bytea_output = 'escape'", "client_encoding = 'LATIN1'", "standard_conforming_strings = off"} {
		p.exec("alter database " + pg.Database + " set " + setting) // this connection keeps its own
	}
	p.initialise()
	p.start()
	for i, payload := range payloads {
		sql := strings.ReplaceAll(payload.sql, "%s", column)
		p.exec(fmt.Sprintf("insert into outbox values ('%s', 'order', 'k', 't', %s)", eventID(i), sql))
	}
	records := p.await(len(payloads))
	for i, payload := range payloads {
		got := recordOf(t, records, eventID(i)).Value
		if (got == nil) != (payload.want == nil) || !bytes.Equal(got, payload.want) {
			t.Errorf("%s: got %d bytes %.60q, want %d bytes %.60q", payload.name, len(got), got, len(payload.want), payload.want)
		}
	}
}

// unicode lists texts that careless handling changes.
func unicode() []payload {
	var all []payload
	for name, text := range map[string]string{
		"astral":          "🎉𝔘𝔫𝔦\U0010FFFF",
		"combining":       "e\u0301 \u00e9 a\u0328\u0301", // neither form may become the other
		"right to left":   "שלום \u202eabc\u202c مرحبا",
		"line separators": "a\u2028b\u2029c\u0085d",
		"byte order mark": "\ufeffbom",
		"not characters":  "\uffff\ufffe\ufffd",
		"zero width":      "a\u200bb\u200dc\u2060d",
	} {
		all = append(all, payload{name, "'" + text + "'", []byte(text)})
	}
	return all
}

// TestKeys: the key is the aggregate id's text, and decides the partition the
// way Kafka's own clients do; without one the event id does.
func TestKeys(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(strings.Replace(outboxTable, "aggregateid varchar(255) not null", "aggregateid text", 1))
		p.initialise()
		p.start()

		keys := []any{nil, nil, nil, "", " ", "a", "order-1", "客户-3 é🎉", "\u2028", strings.Repeat("k", 5000)}
		for i, key := range keys {
			p.exec("insert into outbox values ($1, 'order', $2, 't', '1')", eventID(i), key)
		}

		records := p.await(len(keys))
		for i, key := range keys {
			r := recordOf(t, records, eventID(i))
			hashed := []byte(eventID(i))
			if text, isText := key.(string); isText {
				hashed = []byte(text)
				if r.Key == nil || string(r.Key) != text {
					t.Errorf("key %.60q, want %.60q", r.Key, text)
				}
			} else if r.Key != nil {
				t.Errorf("key %q, want null", r.Key)
			}
			if want := javaPartition(hashed, 6); int(r.Partition) != want {
				t.Errorf("key %.60q: partition %d, want %d", r.Key, r.Partition, want)
			}
		}
	})
}

// javaPartition is another client's opinion on where a key belongs.
func javaPartition(key []byte, partitions int) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: append([]byte{}, key...)}, partitions)
}

// TestOrderPerKey: however transactions interleave, each key's events are in
// one partition in the order in which they were committed.
func TestOrderPerKey(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		load := harness.StartLoad(t, pg, harness.LoadConfig{Writers: 3, Keys: 10})
		load.AwaitCommitted(1500, patience)
		load.Stop()

		report := load.Verify(p.await(load.Committed()))
		t.Log(report)
		if report.Err() != nil || report.Duplicates > 0 {
			t.Errorf("%s: %v", report, report.Err())
		}
		p.stop(relay)
	})
}

// TestHeaders: every record says which event it is, where it was read, and
// where it stands there; its timestamp is the commit's.
func TestHeaders(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.start()
		source := fmt.Sprintf("%s/%s/%s/0", harness.Value[string](t, pg, "select system_identifier::text from pg_control_system()"), pg.Database, p.name)

		var begun, ended []time.Time
		for n := range 3 { // transactions of two events of one key
			begun = append(begun, p.commitSlowly(order(2*n, "a"), order(2*n+1, "a")))
			ended = append(ended, harness.Value[time.Time](t, pg, "select clock_timestamp()"))
		}

		records := p.await(6)
		format := regexp.MustCompile(`^00000001-[0-9a-f]{16}-0000000[01]$`)
		var positions []string
		for n, r := range records {
			names := []string{r.Headers[0].Key, r.Headers[1].Key, r.Headers[2].Key}
			if !slices.Equal(names, []string{"id", "walpost-source", "walpost-position"}) || len(r.Headers) != 3 {
				t.Errorf("headers %v", r.Headers)
			}
			if r.Header("id") != eventID(n) || r.Header("walpost-source") != source || !format.MatchString(r.Header("walpost-position")) {
				t.Errorf("record %d: headers %q, want source %s", n, r.Headers, source)
			}
			if pos := position(t, r); pos.Index != uint32(n%2) || n%2 == 1 && pos.Commit != position(t, records[n-1]).Commit {
				t.Errorf("record %d is at %s", n, pos)
			}
			if r.Time.Before(begun[n/2].Truncate(time.Millisecond)) || r.Time.After(ended[n/2]) {
				t.Errorf("record %d: timestamp %s, committed between %s and %s", n, r.Time, begun[n/2], ended[n/2])
			}
			positions = append(positions, r.Header("walpost-position"))
		}
		if !slices.IsSorted(positions) || len(slices.Compact(positions)) != 6 {
			t.Errorf("positions %v are not in commit order", positions)
		}
	})
}

// commitSlowly returns the server's time between the events and their commit.
func (p *pipeline) commitSlowly(events ...harness.Event) (before time.Time) {
	p.t.Helper()
	err := pgx.BeginFunc(p.t.Context(), p.db, func(tx pgx.Tx) error {
		for _, e := range events {
			if _, err := tx.Exec(context.Background(), insertEvent, e.ID, e.Key, e.Value); err != nil {
				return err
			}
		}
		return tx.QueryRow(context.Background(), "select clock_timestamp()").Scan(&before)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return before
}
