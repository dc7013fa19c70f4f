package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// TestOtherNames: an existing table of other names, in any characters, works
// as it is.
func TestOtherNames(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		const table = `"My Schema"."Out""box"`
		p := newPipeline(t, pg)
		p.set("outbox.table", table)
		p.set("outbox.columns", map[string]string{
			"id": "Event Id", "aggregate_type": "kind", "aggregate_id": `the "key"`, "type": "été", "payload": "select",
		})
		p.set("postgres.publication", `My "Publication"`)
		p.exec(`create schema "My Schema"`)
		p.exec(`create table ` + table + ` (extra text, "select" text, "the ""key""" int, "été" text, kind text, "Event Id" bigserial primary key)`)
		p.initialise()
		p.start()

		p.exec(`insert into ` + table + ` (kind, "the ""key""", "select") values ('order', 42, 'first'), ('order', 43, 'second')`)

		records := p.await(2)
		wantIDs(t, records, "1", "2")
		if r := recordOf(t, records, "2"); string(r.Key) != "43" || string(r.Value) != "second" || r.Topic != p.topic("order") {
			t.Errorf("record %s: key %q, value %q", r.Topic, r.Key, r.Value)
		}
	})
}

// TestInitMakesTheTableOfOtherNames: where the table is missing, init makes it
// with the names of the configuration.
func TestInitMakesTheTableOfOtherNames(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.set("outbox.table", `public."Out""box"`)
		p.set("outbox.columns", map[string]string{"id": "Event Id", "payload": "Body"})
		p.initialise()
		p.start()
		p.exec(`insert into "Out""box" ("Event Id", aggregatetype, aggregateid, type, "Body") values ($1, 'order', 'a', 't', '{}')`, eventID(1))
		wantIDs(t, p.await(1), eventID(1))
	})
}

// TestFixedTopic: one topic for everything; the aggregate type may be what it
// likes.
func TestFixedTopic(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.set("outbox.topic", p.topic("order"))
		p.exec(outboxTable)
		p.initialise()
		p.start()
		p.exec("insert into outbox values ($1, 'no topic''s name! ', 'a', 't', '1'), ($2, '', 'a', 't', '2')", eventID(1), eventID(2))
		records := p.await(2)
		if got := ids(records); !slices.Equal(got, []string{eventID(1), eventID(2)}) {
			t.Errorf("events %v", got)
		}
	})
}

// TestTopicOfTheAggregateType: each type has its topic, within one transaction
// too.
func TestTopicOfTheAggregateType(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		for _, kind := range []string{"Customer_1", "a.b-c"} {
			p.kafka.CreateTopic(t, p.topic(kind), 1)
		}
		p.start()
		p.exec("insert into outbox values ($1, 'order', 'a', 't', '1'), ($2, 'Customer_1', 'a', 't', '2'), ($3, 'a.b-c', 'a', 't', '3')", eventID(1), eventID(2), eventID(3))
		records := p.await(3)
		for n, kind := range []string{"order", "Customer_1", "a.b-c"} {
			if r := recordOf(t, records, eventID(n+1)); r.Topic != p.topic(kind) {
				t.Errorf("event %d is in %s, want %s", n+1, r.Topic, p.topic(kind))
			}
		}
	})
}

// TestPartitionedTable: rows appear under the table's own name, whichever
// partition holds them, also one that was added while the relay runs.
func TestPartitionedTable(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(`create table outbox(id uuid, aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb,
			day date not null default '2030-01-01', primary key (id, day)) partition by range (day)`)
		p.exec("create table outbox_1 partition of outbox for values from ('2030-01-01') to ('2030-01-02')")
		p.initialise()
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)

		p.exec("create table outbox_2 partition of outbox for values from ('2030-01-02') to ('2030-01-03')")
		p.exec("create table outbox_rest (day date not null, payload jsonb, type text not null, aggregateid text not null, aggregatetype text not null, id uuid not null)")
		p.exec("alter table outbox attach partition outbox_rest default") // columns in another order
		for n, day := range []string{"2030-01-02", "2031-01-01", "2030-01-01"} {
			p.exec("insert into outbox values ($1, 'order', 'a', 't', $2, $3)", eventID(n+2), order(n+2, "").Value, day)
		}
		p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "a"))

		p.exec("drop table outbox_1")
		p.stop(relay)
		p.start() // the publication is still what it was
		p.exec("insert into outbox values ($1, 'order', 'a', 't', $2, '2030-01-02')", eventID(5), order(5, "").Value)
		p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "a"), order(5, "a"))
	})
}

// TestColumnsChangeWhileRunning: columns that are not mapped may come and go.
func TestColumnsChangeWhileRunning(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.exec("alter table outbox add column tenant text not null default 'x'")
		p.commit(order(2, "a"))
		p.script("begin", order(3, "a"), "alter table outbox add column later int", order(4, "a"), "commit")
		p.exec("alter table outbox drop column tenant")
		p.commit(order(5, "a"))
		p.exec("alter table outbox alter column payload type text")
		p.commit(order(6, "a"))
		p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "a"), order(5, "a"), order(6, "a"))

		p.stop(relay)
		p.start() // nor is it in doubt afterwards
		p.commit(order(7, "a"))
		p.await(7)
	})
}

// TestTopicsAreCreated as the configuration says, where it says so.
func TestTopicsAreCreated(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.set("kafka.topics", map[string]any{"create": true, "partitions": 3, "config": map[string]any{"retention.ms": 12345678}})
		p.exec(outboxTable)
		p.initialise()
		p.start()
		p.exec("insert into outbox select gen_random_uuid(), 'invoice', n::text, 't', '1' from generate_series(1, 50) n")

		partitions := map[int32]bool{}
		for _, r := range p.await(50) {
			partitions[r.Partition] = true
			if r.Topic != p.topic("invoice") {
				t.Fatalf("a record is in %s", r.Topic)
			}
		}
		if len(partitions) != 3 {
			t.Errorf("records in partitions %v, want all of three", partitions)
		}
		if got := topicConfig(t, p.kafka, p.topic("invoice"), "retention.ms"); got != "12345678" {
			t.Errorf("retention.ms is %q", got)
		}
		if got := topicConfig(t, p.kafka, p.checkpointTopic, "cleanup.policy"); got != "compact" {
			t.Errorf("cleanup.policy of the checkpoint topic is %q", got)
		}
	})
}

// topicConfig reads a topic's setting.
func topicConfig(t *testing.T, broker *harness.Broker, topic, name string) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrDescribeConfigsRequest()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{name}
	request.Resources = append(request.Resources, resource)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range response.Resources[0].Configs {
		if config.Name == name && config.Value != nil {
			return *config.Value
		}
	}
	return ""
}

// TestMissingTopic: an event without a topic holds up what is behind it, and
// the relay says so; once the topic is there it goes on by itself.
func TestMissingTopic(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.script("begin", order(2, "a"), "insert into outbox values ('"+eventID(3)+"', 'invoice', 'a', 't', '1')", "commit")
		p.exec("insert into outbox values ($1, 'invoice', 'a', 't', '1')", eventID(4))

		awaitCondition(t, relay, "topic_missing", p.topic("invoice"))
		first := recordOf(t, p.await(1), eventID(1))
		p.awaitConfirmed(position(t, first).Commit) // what precedes it does not wait

		p.kafka.CreateTopic(t, p.topic("invoice"), 2)
		relay.WaitReady(patience)
		var records []harness.Record
		harness.Eventually(t, patience, "all events", func() error {
			if records = p.published(); !slices.Contains(ids(records), eventID(3)) || !slices.Contains(ids(records), eventID(4)) {
				return fmt.Errorf("events %v", ids(records))
			}
			return nil
		})
		recordOf(t, records, eventID(2))
		// Of the transaction that waits, what arrived in a batch of its own may
		// have been published by each attempt; nothing else was.
		once := slices.DeleteFunc(slices.Clone(records), func(r harness.Record) bool { return r.Header(outbox.HeaderID) == eventID(2) })
		wantIDs(t, once, eventID(1), eventID(3), eventID(4))
		p.awaitConfirmed(position(t, recordOf(t, records, eventID(4))).Commit)
		p.stop(relay)
		if entered := strings.Count(relay.Log(), `"condition entered"`); entered != 1 {
			t.Errorf("the condition was logged %d times", entered)
		}
	})
}

// awaitCondition waits until /readyz says 503 for a condition, and wants the
// words in what it says.
func awaitCondition(t *testing.T, relay *harness.Relay, condition string, words ...string) {
	t.Helper()
	harness.Eventually(t, patience, condition+" on /readyz", func() error {
		code, body, err := relay.Get("/readyz?verbose")
		_, told, failed := strings.Cut(body, "[-]"+condition+" failed: ")
		told, _, _ = strings.Cut(told, "\n")
		if code != http.StatusServiceUnavailable || !failed {
			return fmt.Errorf("code %d: %s %w", code, body, err)
		}
		for _, word := range append(words, "remedy: ") {
			if !strings.Contains(told, word) {
				return fmt.Errorf("it does not tell of %s: %s", word, told)
			}
		}
		return nil
	})
}
