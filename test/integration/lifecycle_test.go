package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// TestSIGTERMDrains: what was read is acknowledged, remembered and confirmed
// before the relay ends, so that the next one begins where it stopped.
func TestSIGTERMDrains(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200})
		progresses(t, relay, 500)

		p.stop(relay) // in the middle of it
		harness.Eventually(t, patience, "the slot stands where the checkpoint does", func() error {
			// An acknowledged commit takes a moment to be visible to others.
			if record, slot := p.record(), p.confirmed(); uint64(record.Confirmed) != slot {
				return fmt.Errorf("the checkpoint stands at %s, the slot at %X", record.Confirmed, slot)
			}
			return nil
		})
		relay = p.start()
		progresses(t, relay, 200)
		load.Stop()
		p.settle(load.Ledger)
		before := p.verify(load.Ledger)

		p.stop(relay) // with nothing more to come
		p.start()
		after := p.finish(load)
		if n := after.Duplicates - before.Duplicates; n != 0 {
			t.Errorf("%d events came again after a clean stop", n)
		}
		figure(t, "stopped under load: %d of %d events came twice; stopped when caught up: %d", before.Duplicates, before.Committed, after.Duplicates-before.Duplicates)
	})
}

// TestSIGTERMDuringAnOutage: what can't be acknowledged is left for the next
// relay, and nothing waits for it longer than shutdown_timeout.
func TestSIGTERMDuringAnOutage(t *testing.T) {
	t.Parallel()
	p, _, kafka := breakable(t, nil)
	p.set("shutdown_timeout", "5s")
	load := outageLoad(t, p.pg)
	for name, fault := range map[string]struct{ begin, end func() }{
		"frozen":  {kafka.Pause, kafka.Unpause},
		"stopped": {kafka.Stop, kafka.Start},
	} {
		relay := p.start()
		progresses(t, relay, 200)
		fault.begin()
		if name == "stopped" {
			p.awaitCondition(relay, "kafka_unreachable")
		} else {
			awaitInFlight(t, relay)
		}
		start := time.Now()
		p.stop(relay)
		figure(t, "Kafka %s: ended within %s of SIGTERM", name, time.Since(start).Round(10*time.Millisecond))
		fault.end()
	}
	p.start()
	p.finish(load)
}

// awaitInFlight waits until events wait for their acknowledgement.
func awaitInFlight(t *testing.T, relay *harness.Relay) {
	t.Helper()
	harness.Eventually(t, patience, "events in flight", func() error {
		if n := scrape(t, relay)["walpost_oldest_unacked_event_age_seconds"]; n < 1 {
			return fmt.Errorf("the oldest is %f s old", n)
		}
		return nil
	})
}

// awaitCondition waits until the relay is not ready for the named reason.
func (p *pipeline) awaitCondition(relay *harness.Relay, name string) {
	p.t.Helper()
	harness.Eventually(p.t, patience, name, func() error {
		code, said, err := relay.Get("/readyz")
		if code == http.StatusServiceUnavailable && strings.Contains(said, "[-]"+name+" failed") {
			return nil
		}
		return fmt.Errorf("code %d, %s, %w", code, said, err)
	})
}

// TestASecondSignalEndsAtOnce: the relay would wait an hour for Kafka.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p, _, kafka := breakable(t, nil)
	p.set("shutdown_timeout", "1h")
	relay := p.start()
	load := outageLoad(t, p.pg)
	progresses(t, relay, 100)
	kafka.Pause()
	awaitInFlight(t, relay)
	relay.SIGTERM()
	harness.Eventually(t, patience, "stopping", func() error {
		_, said, err := relay.Get("/readyz")
		if strings.Contains(said, "state stopping") {
			return nil
		}
		return fmt.Errorf("%s, %w", said, err)
	})
	lasting(t, relay, 1100*time.Millisecond) // a signal sent twice in a second is one
	relay.SIGTERM()
	if code := relay.Wait(patience); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	kafka.Unpause()
	p.start()
	p.finish(load)
}

// TestServersAwayAtTheStart: the relay waits for them, alive and not ready,
// whichever it is, and says so once.
func TestServersAwayAtTheStart(t *testing.T) {
	t.Parallel()
	p, pg, kafka := breakable(t, nil)
	ledger := harness.NewLedger()
	p.single(ledger, "before")
	pg.Stop()
	kafka.Stop()

	relay := p.launch()
	p.awaitCondition(relay, "kafka_unreachable") // is asked first
	kafka.Start()
	p.awaitCondition(relay, "postgres_unreachable")
	lasting(t, relay, 10*time.Second) // for the count of log lines
	if code, said, err := relay.Get("/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d %s %v", code, said, err)
	}
	pg.Start()
	relay.WaitReady(patience)
	p.settle(ledger)
	lines := logLines(t, relay)
	once(t, lines, "kafka_unreachable")
	once(t, lines, "postgres_unreachable")
	if len(lines) > 8 {
		t.Errorf("%d log lines, want one per change of state: %v", len(lines), lines)
	}
	p.stop(relay)

	kafka.Stop() // alone
	relay = p.launch()
	p.awaitCondition(relay, "kafka_unreachable")
	p.single(ledger, "meanwhile")
	kafka.Start()
	relay.WaitReady(patience)
	p.settle(ledger)
	if report := p.verify(ledger); report.Duplicates != 0 {
		t.Errorf("%d came twice", report.Duplicates)
	}
}

// TestAWrongBrokerPortIsWaitedFor: it may be a broker that is yet to come.
func TestAWrongBrokerPortIsWaitedFor(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("kafka.brokers", []string{fmt.Sprint("127.0.0.1:", harness.FreePort(t))})
	relay := p.launch()
	p.awaitCondition(relay, "kafka_unreachable")
	lasting(t, relay, 2*time.Second)
	p.stop(relay)
	if holds := harness.Value[bool](t, p.pg, "select active from pg_replication_slots where slot_name = $1", p.name); holds {
		t.Error("the slot is held for a relay that can't publish")
	}
}

// TestRefusedCredentials: at the start they are a mistake and end the relay,
// later they are a rotation under way and are waited for.
func TestRefusedCredentials(t *testing.T) {
	pg := harness.DedicatedPostgres(t, harness.Newest, nil)
	p := newPipelineTo(t, pg.PG, harness.Kafka(t))
	p.exec(outboxTable)
	p.initialise()
	asksForPasswords(p)

	secret := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.set("postgres.url", strings.Replace(p.pg.URL, "postgres@", "relay@", 1))
	p.set("postgres.password.file", secret)
	write("not-it")
	log := p.ends(p.launch(), 1, "postgres_auth_failed")
	if strings.Contains(log, "not-it") {
		t.Errorf("the log holds the password: %s", log)
	}

	write("first")
	relay := p.start()
	p.exec("alter role relay password 'second'")
	p.exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", p.name)
	p.awaitCondition(relay, "postgres_auth_failed")
	write("second")
	relay.WaitReady(patience)
	ledger := harness.NewLedger()
	p.single(ledger, "after")
	p.settle(ledger)
	p.verify(ledger)
	once(t, logLines(t, relay), "postgres_auth_failed")
}

// asksForPasswords makes the server ask role relay, and nobody else, for a
// password. A superuser's COPY can write the file that says so.
func asksForPasswords(p *pipeline) {
	p.exec("create role relay login replication password 'first'")
	file := harness.Value[string](p.t, p.pg, "show hba_file")
	p.exec(`copy (select unnest(array['local all all trust', 'host all relay all scram-sha-256', 'host all all all trust'])) to '` + file + `'`)
	p.exec("select pg_reload_conf()")
}

func TestAMissingRoleEndsTheRelay(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("postgres.url", strings.Replace(p.pg.URL, "postgres@", "nobody_of_that_name@", 1))
	p.ends(p.launch(), 1, "postgres_auth_failed")
}

// TestAStandbyTakesOver: of two relays of one pipeline one works. The other is
// ready to, and does when the first is killed, or stops.
func TestAStandbyTakesOver(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	first := p.start()
	load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200})
	progresses(t, first, 200)

	second := p.standby()
	first.Kill()
	took := takesOver(t, second)
	figure(t, "after SIGKILL of the first, the second streamed within %s", took)

	third := p.standby()
	start := time.Now()
	p.stop(second)
	takesOver(t, third)
	figure(t, "after SIGTERM to the second, the third streamed within %s", time.Since(start).Round(time.Millisecond))

	report := p.finish(load)
	figure(t, "%d events, %d came twice", report.Committed, report.Duplicates)
	for _, relay := range []*harness.Relay{second, third} {
		once(t, logLines(t, relay), "slot_busy")
	}
}

// standby starts a relay of a pipeline that has one, and waits until it is
// ready to take over.
func (p *pipeline) standby() *harness.Relay {
	p.t.Helper()
	relay := p.start()
	if _, said, err := relay.Get("/readyz?verbose"); !strings.Contains(said, "state standby") || !strings.Contains(said, "[+]slot_busy ok: ") {
		p.t.Errorf("the second relay is no standby: %s %v", said, err)
	}
	if m := scrape(p.t, relay); m[`walpost_role{role="standby"}`] != 1 || m[`walpost_role{role="streaming"}`] != 0 {
		p.t.Errorf("its role is not standby: %v", m)
	}
	return relay
}

// takesOver waits until a relay streams and publishes.
func takesOver(t *testing.T, relay *harness.Relay) time.Duration {
	t.Helper()
	took := harness.Eventually(t, patience, "the standby takes over", func() error {
		if scrape(t, relay)[`walpost_role{role="streaming"}`] == 0 {
			return fmt.Errorf("it does not stream")
		}
		return nil
	})
	progresses(t, relay, 200)
	return took.Round(time.Millisecond)
}
