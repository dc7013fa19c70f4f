package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// poison is a row that can't be published as the configuration says.
type poison struct {
	name   string
	table  string            // definition; empty: the default
	set    map[string]any    // configuration with which it is poison
	row    string            // values
	noID   bool              // the row has none to name
	column string            // at fault; empty: the row as a whole
	cure   map[string]any    // configuration with which it isn't; nil: there is none
	cured  func(string) bool // judges the value it is then published with
}

const secretPayload = "never-to-be-shown"

func poisons() []poison {
	return []poison{
		{
			name:   "an aggregate type that makes no topic",
			row:    `'order placed!', 'key-of-it', 't', '"` + secretPayload + `"'`,
			column: "aggregatetype",
			cure:   map[string]any{"outbox.topic": "order"},
			cured:  func(value string) bool { return value == `"`+secretPayload+`"` },
		},
		{
			name:  "a payload that is too large",
			set:   map[string]any{"kafka.max_message_bytes": "4KiB"},
			row:   `'order', 'key-of-it', 't', ('"' || repeat('` + secretPayload + `', 1000) || '"')::jsonb`,
			cure:  map[string]any{"kafka.max_message_bytes": "1020KiB"},
			cured: func(value string) bool { return value == `"`+strings.Repeat(secretPayload, 1000)+`"` },
		},
		{
			name:   "no event id",
			table:  strings.Replace(outboxTable, "id uuid primary key", "id uuid", 1),
			row:    `'order', 'key-of-it', 't', '"` + secretPayload + `"'`,
			noID:   true,
			column: "id",
		},
		{
			name:   "no aggregate type",
			table:  strings.Replace(outboxTable, "aggregatetype varchar(255) not null", "aggregatetype varchar(255)", 1),
			row:    `null, 'key-of-it', 't', '"` + secretPayload + `"'`,
			column: "aggregatetype",
			cure:   map[string]any{"outbox.topic": "order"},
			cured:  func(value string) bool { return value == `"`+secretPayload+`"` },
		},
	}
}

// TestPoison: a row that can't be published stops the relay with exit code 1.
// What precedes it, in its transaction too, is in Kafka; the transactions before
// are confirmed and nothing from it on is. Once the cause is removed the relay
// goes on from there.
func TestPoison(t *testing.T) {
	for _, bad := range poisons() {
		t.Run(strings.ReplaceAll(bad.name, " ", "_"), func(t *testing.T) {
			onEachRelease(t, func(t *testing.T, pg *harness.PG) { poisoned(t, pg, bad) })
		})
	}
}

func poisoned(t *testing.T, pg *harness.PG, bad poison) {
	p := newPipeline(t, pg)
	p.apply(bad.set)
	if bad.table == "" {
		bad.table = outboxTable
	}
	p.exec(bad.table)
	p.initialise()
	relay := p.start()

	p.commit(order(1, "a"), order(2, "b"))
	id := "'" + eventID(4) + "'"
	if bad.noID {
		id = "null"
	}
	p.script("begin", order(3, "a"), fmt.Sprintf("insert into outbox values (%s, %s)", id, bad.row), order(5, "a"), "commit")
	p.commit(order(6, "b"))

	at := p.blames(p.ends(relay, 1, "poison_event"), bad)
	records := p.await(3)
	wantIDs(t, records, eventID(1), eventID(2), eventID(3))
	p.wantConfirmedBetween(position(t, recordOf(t, records, eventID(2))).Commit, at.Commit)
	p.refuses(1, "poison_event", "run")
	p.wantConfirmedBetween(position(t, recordOf(t, records, eventID(2))).Commit, at.Commit)

	if bad.cure == nil {
		return
	}
	p.apply(bad.cure)
	relay = p.start()
	harness.Eventually(t, patience, "all six events", func() error {
		records = p.published()
		for n := range 6 {
			if !slices.Contains(ids(records), eventID(n+1)) {
				return fmt.Errorf("event %d is not among %d records", n+1, len(records))
			}
		}
		return nil
	})
	if r := recordOf(t, records, eventID(4)); !bad.cured(string(r.Value)) || string(r.Key) != "key-of-it" || position(t, r) != at {
		t.Errorf("the event that was poison is published as %q at %s, with a value of %d bytes", r.Key, position(t, r), len(r.Value))
	}
	p.awaitConfirmed(position(t, recordOf(t, records, eventID(6))).Commit)
	p.stop(relay)
}

// apply puts settings in place; a topic's name gets the test's prefix.
func (p *pipeline) apply(settings map[string]any) {
	for path, value := range settings {
		if path == "outbox.topic" {
			value = p.topic(value.(string))
		}
		p.set(path, value)
	}
}

// blames checks what a relay said about a row: which it is and where it stands,
// and nothing that is in it. It returns the position.
func (p *pipeline) blames(log string, bad poison) outbox.Position {
	p.t.Helper()
	last := log[max(0, strings.LastIndex(log, "walpost: ")):]
	text := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}`).FindString(last)
	var at outbox.Position
	if err := at.UnmarshalText([]byte(text)); err != nil || at.Index != 1 {
		p.t.Errorf("no position of the second event of a transaction in: %s", last)
	}
	if !bad.noID && !strings.Contains(last, eventID(4)) {
		p.t.Errorf("the event is not named: %s", last)
	}
	if bad.column != "" && !strings.Contains(last, "column "+bad.column) {
		p.t.Errorf("the column is not named: %s", last)
	}
	for _, secret := range []string{secretPayload, "key-of-it"} {
		if strings.Contains(log, secret) {
			p.t.Errorf("the log shows a key or a payload: %s", log)
		}
	}
	return at
}

// wantConfirmedBetween: past the transaction that commits at last, and not past
// the one that commits at bad.
func (p *pipeline) wantConfirmedBetween(last, bad uint64) {
	p.t.Helper()
	if at := p.confirmed(); at <= last || at > bad {
		p.t.Errorf("the slot stands at %s, want past %s and not past %s", checkpoint.LSN(at), checkpoint.LSN(last), checkpoint.LSN(bad))
	}
	if record := p.record(); uint64(record.Confirmed) > bad || record.Last.ID != eventID(2) {
		p.t.Errorf("the checkpoint stands at %s, its last event is %s", record.Confirmed, record.Last.ID)
	}
}

// TestMappedColumnIsDropped: rows that no longer fit the mapping stop the relay;
// a mapping that fits them lets it go on, and nothing is lost.
func TestMappedColumnIsDropped(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.initialise() // makes the table, which has a column created_at
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)
		p.exec("alter table outbox drop column type")
		p.exec("insert into outbox (id, aggregatetype, aggregateid, payload) values ($1, 'order', 'a', $2)", eventID(2), order(2, "a").Value)

		log := p.ends(relay, 1, "decode_failed")
		if !strings.Contains(log, "column type: ") {
			t.Errorf("the column is not named:\n%s", log)
		}
		p.refuses(1, "decode_failed", "run")
		p.awaitExactly(order(1, "a"))

		p.set("outbox.columns", map[string]string{"type": "created_at"})
		p.start()
		p.awaitExactly(order(1, "a"), order(2, "a"))
	})
}

// TestPayloadTypeThatCannotBePublished is found by init, before any event.
func TestPayloadTypeThatCannotBePublished(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(strings.Replace(outboxTable, "jsonb", "xml", 1))
		code, _, stderr := p.walpost("init")
		if code != 1 || !strings.Contains(stderr, "column payload") || !strings.Contains(stderr, "remedy: ") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if p.confirmed() != 0 {
			t.Error("a slot was made")
		}
	})
}
