package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/config"
)

// leakless fails a run that leaves goroutines behind.
type leakless struct{ *testing.M }

func (m leakless) Run() int {
	code := m.M.Run()
	// os/signal keeps its one loop for the life of the process.
	if err := goleak.Find(goleak.IgnoreAnyFunction("os/signal.loop")); err != nil && code == 0 {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){
		"walpost": func() {
			os.Exit(Execute(context.Background(), fakeCommands(), os.Args[1:], Environment{Out: os.Stdout, Err: os.Stderr, Lookup: os.LookupEnv}))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": exitsWith},
	})
}

// exitsWith is the script command `code N program args…`: the program must end
// with exit code N.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program [args...]")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exited *exec.ExitError
		if !errors.As(err, &exited) {
			ts.Fatalf("%v", err)
		}
		code = exited.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// stopError is a relay's answer.
type stopError struct{ code int }

func (e *stopError) Error() string  { return "slot_missing: slot walpost_gone does not exist" }
func (e *stopError) ExitCode() int  { return e.code }
func (e *stopError) Remedy() string { return "see the runbook" }

// fakeCommands show what they were given; the pipeline's name says how run
// ends.
func fakeCommands() Commands {
	return Commands{
		Run: func(_ context.Context, cfg *config.Config, logs io.Writer) error {
			_, _ = fmt.Fprintf(logs, "running %v\n%#v\n", cfg, cfg)
			switch cfg.Pipeline {
			case "gone":
				return fmt.Errorf("run: %w", &stopError{3})
			case "broken":
				return errors.New("event 1 can't be published")
			}
			return nil
		},
		Init: func(_ context.Context, cfg *config.Config, opts app.InitOptions, out io.Writer) error {
			_, err := fmt.Fprintf(out, "init %s %+v\n", cfg.Pipeline, opts)
			return err
		},
	}
}

func TestSignals(t *testing.T) {
	exited := make(chan struct{})
	ctx, stop := signalsApart(t.Context(), 0, func() { close(exited) })
	defer stop()
	raise(t, syscall.SIGTERM)
	<-ctx.Done()
	select {
	case <-exited:
		t.Fatal("the first signal ended the process")
	default:
	}
	raise(t, os.Interrupt)
	<-exited
}

// timeout(1) signals its child and then the child's group.
func TestASignalSentTwiceIsOneSignal(t *testing.T) {
	ctx, stop := signalsApart(t.Context(), time.Hour, func() { t.Error("exit called") })
	defer stop()
	raise(t, syscall.SIGTERM)
	<-ctx.Done()
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGTERM)
	defer signal.Stop(seen)
	raise(t, syscall.SIGTERM)
	<-seen
}

func TestSignalsAreGivenBack(t *testing.T) {
	ctx, stop := Signals(t.Context(), func() { t.Error("exit called") })
	stop()
	<-ctx.Done()
	others := make(chan os.Signal, 1)
	signal.Notify(others, syscall.SIGTERM)
	defer signal.Stop(others)
	raise(t, syscall.SIGTERM)
	<-others
}

func raise(t *testing.T, s os.Signal) {
	t.Helper()
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// The command line hands its context on, so that a signal reaches the work.
func TestContextReachesTheWork(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	commands := Commands{Run: func(ctx context.Context, _ *config.Config, _ io.Writer) error {
		cancel()
		<-ctx.Done()
		return nil
	}}
	var stderr bytes.Buffer
	code := Execute(ctx, commands, []string{"run", "-c", writeConfig(t)}, Environment{Out: io.Discard, Err: &stderr, Lookup: os.LookupEnv})
	if code != 0 || stderr.Len() > 0 {
		t.Errorf("code %d, %s", code, stderr.String())
	}
}

func writeConfig(t *testing.T) string {
	t.Helper()
	file := t.TempDir() + "/walpost.yaml"
	text := "postgres: {url: \"postgres://db/app\"}\nkafka: {brokers: [\"k:9092\"]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A closed pipe is an error like any other.
func TestOutputThatFails(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"validate", "-c", writeConfig(t)}} {
		var stderr bytes.Buffer
		code := Execute(t.Context(), Commands{}, args, Environment{Out: w, Err: &stderr, Lookup: os.LookupEnv})
		if code != 1 || !strings.Contains(stderr.String(), "closed pipe") {
			t.Errorf("%v: code %d, %s", args, code, stderr.String())
		}
	}
}
