package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/test/harness/process"
)

// asProgram makes the test binary the program itself; its relays are then this
// binary too.
const asProgram = "WALPOST_DEV_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// endTimeout bounds every wait for a demo that was told to end.
const endTimeout = time.Minute

// performed is a demo in a process of its own, with its own place for
// temporary files.
type performed struct {
	child  *process.Child
	lines  *bufio.Scanner // of its output
	shown  bytes.Buffer   // what lines has yielded
	errors bytes.Buffer   // read after the end
}

func perform(t *testing.T, tmp string, args ...string) *performed {
	t.Helper()
	return start(t, tmp, exec.Command(self(t), args...))
}

// performUnder has a shell between this process and the demo.
func performUnder(t *testing.T, tmp string, args ...string) *performed {
	t.Helper()
	script := `"$0" "$@"; exit $?` // more than one command, or the shell would become the demo
	return start(t, tmp, exec.Command("sh", append([]string{"-c", script, self(t)}, args...)...))
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, tmp string, cmd *exec.Cmd) *performed {
	t.Helper()
	p := &performed{}
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+tmp)
	cmd.Stderr = &p.errors
	output, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	p.lines = bufio.NewScanner(output)
	p.child, err = process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.child.End(process.Step{Signal: syscall.SIGKILL, Wait: endTimeout}); err != nil {
			t.Error(err)
		}
		_ = output.Close()
	})
	return p
}

// tempDir is one that the database's user may look into, unlike t.TempDir.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walpost-dev-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// await reads the output up to the first line that has text in it.
func (p *performed) await(t *testing.T, text string) {
	t.Helper()
	for p.lines.Scan() {
		p.shown.WriteString(p.lines.Text() + "\n")
		if strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	<-p.child.Done()
	t.Fatalf("it ended without showing %q:\n%s%s", text, p.shown.String(), p.errors.String())
}

// end reads the rest of the output and returns all of it and the exit code.
func (p *performed) end(t *testing.T) (string, int) {
	t.Helper()
	for p.lines.Scan() {
		p.shown.WriteString(p.lines.Text() + "\n")
	}
	code := p.child.ExitCode()
	if p.errors.Len() > 0 {
		t.Logf("standard error:\n%s", p.errors.String())
	}
	return p.shown.String(), code
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("%s is left behind", entry.Name())
	}
}

func TestDemoFromBeginningToEnd(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	shown, code := perform(t, tmp, "demo", "--duration", "3s").end(t)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		`OfferRejectedEvent +OFF-\d+ +outbox\.event\.offer/[0-2] +\S+ ms`,
		`OrderRejectedEvent +ORD-\d+ +outbox\.event\.order/[0-2] +\S+ ms`,
		`rolled back +OFF-`,
		`RELAY KILLED +kill -9 \d+, with \d+ events? under way`,
		`RELAY IS BACK +pid \d+, \S+ ms after the kill`,
		`committed +\d`,
		`(?m)^  lost +0$`,
		`out of order +0  over \d+ keys`,
		`Every committed event arrived, in order; no other did\.`,
	} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("it does not show %s", want)
		}
	}
	if t.Failed() {
		t.Log(shown)
	}
	empty(t, tmp)
}

func TestSignalsEndTheDemoWithItsSummary(t *testing.T) {
	for name, test := range map[string]struct {
		signal syscall.Signal
		after  string
	}{
		"interrupt": {syscall.SIGINT, "RejectedEvent"},
		"terminate": {syscall.SIGTERM, "RELAY KILLED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := tempDir(t)
			p := perform(t, tmp, "demo", "--duration", "2s")
			p.await(t, test.after)
			if err := p.child.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			shown, code := p.end(t)
			if code != 0 || !strings.Contains(shown, "Every committed event arrived") {
				t.Errorf("exit code %d:\n%s", code, shown)
			}
			empty(t, tmp)
		})
	}
}

func TestARelayThatEndsByItself(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	p := perform(t, tmp, "demo", "--duration", "1h")
	p.await(t, "RejectedEvent")
	pid, err := strconv.Atoi(regexp.MustCompile(`relay +pid (\d+)`).FindStringSubmatch(p.shown.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, code := p.end(t)
	said := p.errors.String()
	if code != 1 || !strings.Contains(said, "the relay ended by itself: exit status 0") || !strings.Contains(said, "relay stopped") {
		t.Errorf("exit code %d, want 1, the reason and the relay's log:\n%s", code, said)
	}
	empty(t, tmp)
}

func TestASignalBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	p := perform(t, tmp, "demo", "--duration", "1m")
	p.await(t, "walpost demo")
	if err := p.child.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	shown, code := p.end(t)
	if code != 0 || !strings.Contains(shown, "Stopped before the first event") {
		t.Errorf("exit code %d:\n%s", code, shown)
	}
	empty(t, tmp)
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"too short":             {"demo", "--duration", "1s"},
		"no duration":           {"demo", "--duration", "soon"},
		"no such flag":          {"demo", "--fast"},
		"no such command":       {"perform"},
		"no such configuration": {"relay", "-c", "/nonexistent/walpost.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			p := perform(t, t.TempDir(), args...)
			if _, code := p.end(t); code != 2 || p.errors.Len() == 0 {
				t.Errorf("exit code %d, want 2 and a reason", code)
			}
		})
	}
}
