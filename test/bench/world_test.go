package bench

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/test/harness"
)

// The values of kafka.delivery.
const (
	idempotent  = "idempotent"
	exactlyOnce = "exactly-once"
)

const (
	// patience is how long a benchmark waits for what must come.
	patience   = 2 * time.Minute
	partitions = 6
)

const outboxTable = `create table outbox(id uuid primary key, aggregatetype varchar(255) not null,
	aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb)`

// world is an outbox and the topic it leads to. All modes share one pipeline, one
// after the other: what lies in the WAL or on the broker is the same for each.
type world struct {
	b      *testing.B
	pg     *harness.PG
	broker *harness.Broker
	name   string // of pipeline, slot and publication
}

func newWorld(b *testing.B) *world {
	b.Helper()
	w := &world{b: b, pg: harness.Postgres(b, harness.Newest), broker: harness.Kafka(b), name: harness.Name("bench")}
	w.pg.Exec(b, outboxTable)
	w.broker.CreateTopic(b, w.topic(), partitions)
	if code, _, stderr := harness.RunWalpost(b, w.yaml(idempotent), "init"); code != 0 {
		b.Fatalf("init: exit code %d\n%s", code, stderr)
	}
	return w
}

func (w *world) topic() string { return w.broker.Topic("order") }

func (w *world) yaml(mode string) string {
	return fmt.Sprintf(`
pipeline: %[1]s
postgres: {url: %[2]q, slot: %[1]s, publication: %[1]s}
outbox: {topic: %[3]q}
kafka: {brokers: [%[4]q], delivery: %[5]s, checkpoint: {topic: %[6]q}}
http: {listen: "${%[7]s}"}
`, w.name, w.pg.URL, w.broker.Topic("{aggregate_type}"), w.broker.Addr, mode, w.broker.Topic("checkpoint"), harness.EnvHTTP)
}

// start runs the relay and waits until it streams.
func (w *world) start(mode string, env ...string) *harness.Relay {
	w.b.Helper()
	relay := harness.StartRelay(w.b, w.yaml(mode), env...)
	relay.WaitReady(patience)
	return relay
}

func (w *world) stop(relay *harness.Relay) {
	w.b.Helper()
	relay.SIGTERM()
	if code := relay.Wait(patience); code != 0 {
		w.b.Fatalf("the relay ended with code %d:\n%s", code, relay.Log())
	}
}

// follow reads topics from their start to the benchmark's end. What it reads
// arrives as soon as the broker shows it to a read_committed consumer.
func (w *world) follow(arrived func(at time.Time, records []*kgo.Record), topics ...string) {
	w.b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker.Addrs...), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMinBytes(1), kgo.FetchMaxWait(10*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			if at := time.Now(); !fetches.Empty() {
				arrived(at, fetches.Records())
			}
		}
	}()
	w.b.Cleanup(func() {
		cancel()
		<-ended
		client.Close()
	})
}

// text is some that does not compress.
func text(random *rand.Rand, length int) string {
	raw := make([]byte, length/2)
	for i := range raw {
		raw[i] = byte(random.Uint32())
	}
	return hex.EncodeToString(raw)
}
