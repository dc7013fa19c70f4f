package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/test/harness"
)

// outageLoad writes events to the stamped topic, about as many as the small
// machines that tests run on can take while servers start.
func outageLoad(t *testing.T, pg *harness.PG) *harness.Load {
	t.Helper()
	return harness.StartLoad(t, pg, harness.LoadConfig{Types: []string{stamped}, Rate: 200})
}

// TestServersComeAndGo restarts Postgres, ends it with SIGKILL, then stops Kafka
// for 30 s, all under load and with one and the same relay. Nothing is lost, the
// relay's memory stays bounded, it comes back by itself, and its health tells
// the truth throughout.
func TestServersComeAndGo(t *testing.T) {
	t.Parallel()
	p, pg, kafka := breakable(t, nil)
	p.set("limits.max_in_flight_bytes", "8MiB")
	relay := p.start()
	watched := startSampler(t, relay)
	load := outageLoad(t, p.pg)
	progresses(t, relay, 2000)

	restarted := p.endure(relay, postgresServes(p.pg.URL), pg.Stop, 0, pg.Start)
	killed := p.endure(relay, postgresServes(p.pg.URL), pg.Kill, 0, pg.Start)
	kafkaAway := p.endure(relay, kafkaServes(kafka.Addr, p.topic(stamped)), func() { kafka.Stop(); p.flood(load.Ledger) }, 30*time.Second, kafka.Start)

	lasting(t, relay, 3*time.Second) // of health after the last recovery
	seen := watched.end()
	report := p.finish(load)
	p.stop(relay)
	records := p.published()

	seen.between(kafkaAway.down, kafkaAway.over).truthful(t, vainWithoutKafka)
	seen.truthful(t, vainWithoutPostgres)
	seen.boundedMemory(t, kafkaAway)
	lines := logLines(t, relay)
	for _, o := range []struct {
		name, condition string
		outage
	}{
		{"Postgres restarted", "postgres_unreachable", restarted},
		{"Postgres killed", "postgres_unreachable", killed},
		{"Kafka stopped for 30 s", "kafka_unreachable", kafkaAway},
	} {
		figure(t, "%s: back to the first event %s", o.name, o.recovery(records))
		once(t, logged(lines, o.down, o.over), o.condition)
		if n := len(logged(lines, o.down, o.over)); n > 6 {
			t.Errorf("%s: %d log lines, want one per change of state: %v", o.name, n, logged(lines, o.down, o.over))
		}
	}
	figure(t, "%d events, %d came twice", report.Committed, report.Duplicates)
	if !strings.Contains(pg.Log(), "database system was shut down at") {
		t.Error("the restart of Postgres was no orderly one: the relay has held it up")
	}
}

// TestServersFreeze stops Postgres, then Kafka, from answering without closing
// anything.
func TestServersFreeze(t *testing.T) {
	t.Parallel()
	p, pg, kafka := breakable(t, nil)
	p.set("limits.max_in_flight_bytes", "8MiB")
	relay := p.start()
	watched := startSampler(t, relay)
	load := outageLoad(t, p.pg)
	progresses(t, relay, 2000)

	postgresFrozen := p.endure(relay, postgresServes(p.pg.URL), pg.Pause, 15*time.Second, pg.Unpause)
	kafkaFrozen := p.endure(relay, kafkaServes(kafka.Addr, p.topic(stamped)), func() { kafka.Pause(); p.flood(load.Ledger) }, 30*time.Second, kafka.Unpause)

	lasting(t, relay, 3*time.Second)
	seen := watched.end()
	report := p.finish(load)
	records := p.published()

	seen.between(kafkaFrozen.down, kafkaFrozen.over).truthful(t, vainWithoutKafka)
	seen.truthful(t, vainWithoutPostgres)
	seen.boundedMemory(t, kafkaFrozen)
	lines := logLines(t, relay)
	once(t, logged(lines, kafkaFrozen.down, kafkaFrozen.over), "stalled")
	once(t, logged(lines, kafkaFrozen.down, kafkaFrozen.over), "kafka_unreachable")
	once(t, logged(lines, postgresFrozen.down, postgresFrozen.over), "postgres_unreachable")
	figure(t, "Kafka frozen for 30 s: back to the first event %s", kafkaFrozen.recovery(records))
	figure(t, "Postgres frozen for 15 s: back to the first event %s", postgresFrozen.recovery(records))
	figure(t, "%d events, %d came twice", report.Committed, report.Duplicates)
}

// flood commits 120 MB of events at once, many times what may be in flight.
func (p *pipeline) flood(ledger *harness.Ledger) {
	p.t.Helper()
	pad := strings.Repeat("x", 1000)
	events := make([]harness.Event, 120_000)
	for n := range events {
		events[n] = harness.Event{ID: eventID(n), Key: fmt.Sprint("flood-", n%10), Value: fmt.Sprintf(`{"n": %d, "pad": "%s"}`, n, pad)}
	}
	p.db = p.pg.Connect(p.t) // the old connection may have seen a restart
	p.copy(events)
	ledger.Commit(events...)
}

// outage is what happened to a server, and when.
type outage struct {
	down time.Time // the fault begins
	up   time.Time // the server serves again
	over time.Time // the relay works again
}

// endure breaks a server, waits, mends it, and waits until events flow again
// and the relay says so.
func (p *pipeline) endure(relay *harness.Relay, serves func(context.Context) error, harm func(), lasts time.Duration, mend func()) outage {
	p.t.Helper()
	o := outage{down: time.Now()}
	harm()
	lasting(p.t, relay, lasts)
	back := awaitService(p.t, serves)
	mend()
	o.up = <-back
	progresses(p.t, relay, 500)
	relay.WaitReady(patience)
	o.over = time.Now()
	return o
}

// recovery is the time from the server's return to the first record appended
// after it. It is negative where the relay was faster than the test's own
// client.
func (o outage) recovery(records []harness.Record) time.Duration {
	var first time.Time
	for _, r := range records {
		// Postgres keeps what the relay has read flowing for a moment after it went down.
		if r.Time.After(o.up.Add(-time.Second)) && (first.IsZero() || r.Time.Before(first)) {
			first = r.Time
		}
	}
	return first.Sub(o.up).Round(time.Millisecond)
}

// awaitService tells when a server serves for the first time.
func awaitService(t *testing.T, serves func(context.Context) error) <-chan time.Time {
	t.Helper()
	back := make(chan time.Time, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil && serves(ctx) != nil {
			<-tick.C
		}
		back <- time.Now()
	}()
	return back
}

func postgresServes(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		return errors.Join(conn.Ping(ctx), conn.Close(ctx))
	}
}

// kafkaServes asks whether a topic's partitions have leaders.
func kafkaServes(addr, topic string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0))
		if err != nil {
			return err
		}
		defer client.Close()
		request, asked := kmsg.NewPtrMetadataRequest(), kmsg.NewMetadataRequestTopic()
		asked.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, asked)
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		errs := []error{kerr.ErrorForCode(response.Topics[0].ErrorCode)}
		for _, partition := range response.Topics[0].Partitions {
			errs = append(errs, kerr.ErrorForCode(partition.ErrorCode))
		}
		return errors.Join(errs...)
	}
}

// boundedMemory compares the relay's memory from an outage on with that before.
func (s samples) boundedMemory(t *testing.T, o outage) {
	t.Helper()
	resident := func(x sample) float64 { return float64(x.rss) / 1024 }
	before, after := s.between(time.Time{}, o.down).most(resident), s.between(o.down, o.over.Add(time.Hour)).most(resident)
	figure(t, "resident memory: %.0f MiB at most before the outage, %.0f MiB from then on", before, after)
	const growth = 64 * raceFactor // MiB: eight times what may be in flight, half of what there was to read
	if after > before+growth {
		t.Errorf("memory has grown by %.0f MiB, more than %d MiB", after-before, growth)
	}
}

// TestFastShutdownOfPostgresIsNotHeldUp: a server that is stopped waits for its
// walsenders to have everything confirmed.
func TestFastShutdownOfPostgresIsNotHeldUp(t *testing.T) {
	p, pg, _ := breakable(t, nil)
	stopping := func(what string) {
		start := time.Now()
		pg.Stop()
		figure(t, "Postgres stops within %s, %s", time.Since(start).Round(time.Millisecond), what)
		if log := pg.Log(); !strings.Contains(log[strings.LastIndex(log, "received fast shutdown request"):], "database system is shut down") {
			t.Errorf("Postgres did not come to its end %s", what)
		}
		pg.Start()
	}
	stopping("without a relay")
	relay := p.start()
	stopping("with one that is caught up")
	load := outageLoad(t, p.pg)
	progresses(t, relay, 500)
	stopping("with one under load")
	p.finish(load)
	stopping("with one that is caught up again")
}
