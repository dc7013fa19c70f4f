package integration

import (
	"bytes"
	"strings"
	"testing"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
	"github.com/walpost/walpost/sink/kafka"
	"github.com/walpost/walpost/sink/sinktest"
	"github.com/walpost/walpost/test/harness"
)

// TestSinkOnKafka: what a fake broker is good enough for elsewhere holds on the
// newest Kafka too.
func TestSinkOnKafka(t *testing.T) {
	t.Parallel()
	for kind, atomic := range sinkKinds() {
		t.Run(kind, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				broker := harness.Kafka(t)
				return sinkHarness(broker, broker.Prefix, atomic)
			})
		})
	}
}

// sinkKinds says of each kind of sink whether it is atomic.
func sinkKinds() map[string]bool { return map[string]bool{"continuous": false, "atomic": true} }

// TestOldestKafka: the sink's promises, and the whole way of an event, on the
// oldest supported release.
func TestOldestKafka(t *testing.T) {
	t.Parallel()
	broker := harness.DedicatedKafka(t, harness.Oldest)
	for kind, atomic := range sinkKinds() {
		t.Run(kind+" sink", func(t *testing.T) {
			sinktest.Run(t, func(*testing.T) sinktest.Harness {
				return sinkHarness(broker.Broker, harness.Name("story")+".", atomic)
			})
		})
	}
	t.Run("relay", func(t *testing.T) {
		p := newPipelineTo(t, harness.Postgres(t, harness.Newest), broker.Broker)
		p.set("kafka.topics.create", true)
		p.exec(outboxTable)
		p.initialise()
		relay := p.start()
		load := harness.StartLoad(t, p.pg, harness.LoadConfig{Types: []string{"order", "invoice"}})
		load.AwaitCommitted(300, patience)
		relay.Kill()
		relay = p.start()
		load.AwaitCommitted(600, patience)
		load.Stop()

		var records []harness.Record
		harness.Eventually(t, patience, "every event", func() error {
			records = p.published()
			return load.Verify(records).Err()
		})
		t.Log(load.Verify(records))
		p.stop(relay)
	})
}

// sinkHarness keeps a story's names apart from all others by a prefix.
func sinkHarness(broker *harness.Broker, prefix string, atomic bool) sinktest.Harness {
	return sinktest.Harness{
		Process: func(t *testing.T, pipeline string) sink.Sink {
			t.Helper()
			s, err := kafka.New(kafka.Config{Brokers: []string{broker.Addr}, Pipeline: prefix + pipeline, CheckpointTopic: prefix + pipeline, Atomic: atomic})
			if err == nil {
				err = s.EnsureCheckpointTopic(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Topic: func(t *testing.T, partitions int32) string {
			t.Helper()
			topic := prefix + harness.Name("topic")
			broker.CreateTopic(t, topic, int(partitions))
			return topic
		},
		Published: func(t *testing.T, topic string) []sinktest.Record {
			t.Helper()
			var records []sinktest.Record
			for _, r := range broker.Consume(t, topic) {
				records = append(records, sinkRecord(r))
			}
			return records
		},
		Poison: map[string]func(*outbox.Message){
			"too large":            func(m *outbox.Message) { m.Value = bytes.Repeat([]byte("x"), 1<<20) },
			"no such partition":    func(m *outbox.Message) { m.Partition = 99 },
			"a topic with a space": func(m *outbox.Message) { m.Topic = "a topic" },
			"a topic too long":     func(m *outbox.Message) { m.Topic = strings.Repeat("t", 250) },
		},
	}
}

func sinkRecord(r harness.Record) sinktest.Record {
	record := sinktest.Record{Partition: r.Partition, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, sinktest.Header(h))
	}
	return record
}
