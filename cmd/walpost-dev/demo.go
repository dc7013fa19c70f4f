package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/test/harness/pgembed"
	"github.com/walpost/walpost/test/harness/process"
)

// arrivalTimeout bounds the wait for the last events, and for the first one
// after the kill.
const arrivalTimeout = 30 * time.Second

const database = "postgres"

// demo is one performance. Its fields are set by prepare, in their order.
type demo struct {
	screen *screen
	ledger *ledger

	dir      *process.Dir
	postgres *pgembed.Server
	kafka    *kfake.Cluster
	setup    *relaySetup
	relay    *relay
}

// errBroken ends a demo whose summary has said why.
var errBroken = errors.New("the demo has failed")

// runDemo shows the whole story. The end of ctx cuts it short, but not its
// summary.
func runDemo(ctx context.Context, s *screen, duration time.Duration) (err error) {
	d := &demo{screen: s, ledger: newLedger(s.delivered)}
	defer func() { err = errors.Join(err, d.close()) }()
	work, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	asked, stop := context.WithCancel(work) // ends with either
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	s.title(duration)
	if err := d.prepare(asked, fail); err != nil {
		if ctx.Err() != nil && work.Err() == nil {
			s.leave()
			return nil
		}
		return d.explain(or(work, err))
	}
	if err := d.perform(work, asked, fail, duration); err != nil {
		return d.explain(or(work, err))
	}
	sum := d.ledger.summarise()
	s.summary(sum)
	if !sum.holds() {
		return d.explain(errBroken)
	}
	return nil
}

// or prefers the failure that has ended ctx to what its end has caused.
func or(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// prepare starts everything but the application.
func (d *demo) prepare(ctx context.Context, fail func(error)) error {
	steps := []struct {
		name string
		run  func(context.Context, func(error)) (string, error)
	}{
		{"Postgres", d.startPostgres},
		{"Kafka", d.startKafka},
		{"application", d.openTrainings},
		{"init", d.initialise},
		{"relay", d.startRelay},
	}
	for _, step := range steps {
		begun := time.Now()
		what, err := step.run(ctx, fail)
		if err != nil {
			return err
		}
		d.screen.step(step.name, what, time.Since(begun))
	}
	return nil
}

func (d *demo) startPostgres(ctx context.Context, _ func(error)) (string, error) {
	dir, err := process.NewDir("", "walpost-demo-")
	if err != nil {
		return "", err
	}
	d.dir = dir
	bin, err := pgembed.Find(ctx, pgembed.Search{Logf: func(format string, args ...any) {
		d.screen.busy("Postgres", format, args...)
	}})
	if err != nil {
		return "", err
	}
	// A latency without fsync would flatter.
	d.postgres, err = pgembed.Start(ctx, pgembed.Config{Bin: bin, Settings: map[string]string{"fsync": "on"}})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("port %d, %s", d.postgres.Port(), short(bin)), nil
}

// short writes a path as people do: ~ for their home.
func short(path string) string {
	home, err := os.UserHomeDir()
	if below, ok := strings.CutPrefix(path, home+"/"); ok && err == nil {
		return "~/" + below
	}
	return path
}

func (d *demo) startKafka(context.Context, func(error)) (_ string, err error) {
	if d.kafka, err = startKafka(); err != nil {
		return "", err
	}
	return "in this process, " + d.kafka.ListenAddrs()[0], nil
}

func (d *demo) openTrainings(ctx context.Context, _ func(error)) (string, error) {
	conn, err := pgx.Connect(ctx, d.postgres.URL(database))
	if err != nil {
		return "", fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // everything was answered
	if err := openTrainings(ctx, conn); err != nil {
		return "", err
	}
	return fmt.Sprintf("Open Trainings: %d offers, %d orders", offers, 2*offers), nil
}

// initialise is `walpost init`.
func (d *demo) initialise(ctx context.Context, _ func(error)) (_ string, err error) {
	d.setup, err = newRelaySetup(d.dir.Path, d.postgres.URL(database), d.kafka.ListenAddrs()[0])
	if err != nil {
		return "", err
	}
	cfg, err := config.Load(d.setup.config, os.LookupEnv)
	if err != nil {
		return "", err
	}
	if err := app.Init(ctx, cfg, app.InitOptions{}, io.Discard); err != nil {
		return "", err
	}
	return "outbox table, publication, slot, checkpoint", nil
}

func (d *demo) startRelay(ctx context.Context, fail func(error)) (_ string, err error) {
	if d.relay, err = d.setup.start(fail); err != nil {
		return "", err
	}
	if err := d.relay.ready(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("pid %d, http://%s/metrics", d.relay.child.Pid(), d.setup.address), nil
}

// perform is the story: traffic, a kill half-way, more traffic, and an orderly
// end. asked ends before its time where somebody wants to leave.
func (d *demo) perform(work, asked context.Context, fail func(error), duration time.Duration) error {
	consumer, err := newConsumer(d.kafka.ListenAddrs(), d.ledger)
	if err != nil {
		return err
	}
	consuming := begin(work, consumer.run, fail)
	defer consuming.stop() //nolint:errcheck // its error is fail's
	application := &trainings{url: d.postgres.URL(database), ledger: d.ledger, rolledBack: d.screen.rolledBack}
	d.screen.columns(transactionsPerSecond)
	working := begin(work, application.run, fail)
	defer working.stop() //nolint:errcheck // its error is fail's

	if pause(asked, duration/2) {
		if err := d.crash(asked, fail); err != nil {
			return err
		}
		pause(asked, duration/2)
	}
	if err := working.stop(); err != nil {
		return err
	}
	return d.finish(work)
}

// crash kills the relay while events are under way and starts another at once,
// as a supervisor would. The application knows nothing of it.
func (d *demo) crash(ctx context.Context, fail func(error)) error {
	if !d.ledger.await(ctx, d.ledger.somethingUnderWay) {
		return nil
	}
	if err := d.relay.kill(); err != nil {
		return err
	}
	at := time.Now()
	underWay := d.ledger.kill(at)
	d.screen.died(at, d.relay.child.Pid(), underWay)
	var err error
	if d.relay, err = d.setup.start(fail); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	if d.ledger.await(bounded, d.ledger.isRestored) {
		d.screen.revived(time.Now(), d.relay.child.Pid(), d.ledger.outage())
	}
	return nil
}

// finish waits for what was committed, then ends the relay. What has not
// arrived in time counts as lost.
func (d *demo) finish(work context.Context) error {
	bounded, cancel := context.WithTimeout(work, arrivalTimeout)
	defer cancel()
	if d.ledger.await(bounded, d.ledger.nothingUnderWay) {
		// One that has just been started might not heed SIGTERM yet.
		if err := d.relay.ready(bounded); err != nil {
			return err
		}
	}
	if work.Err() != nil {
		return context.Cause(work)
	}
	return d.relay.stop()
}

// pause reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close ends what is still there, in the reverse order of prepare.
func (d *demo) close() error {
	var errs []error
	if d.relay != nil {
		errs = append(errs, d.relay.kill())
	}
	if d.kafka != nil {
		d.kafka.Close()
	}
	if d.postgres != nil {
		errs = append(errs, d.postgres.Close())
	}
	if d.dir != nil {
		errs = append(errs, d.dir.Remove())
	}
	return errors.Join(errs...)
}

// explain adds the servers' last words to a failure: their logs go with the
// directory.
func (d *demo) explain(err error) error {
	if d.setup == nil {
		return err
	}
	return fmt.Errorf("%w\n\nthe relay's log ends with\n%s", err, indent(d.setup.lastWords(20)))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}
