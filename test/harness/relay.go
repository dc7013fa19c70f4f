package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness/process"
)

// Variables that a configuration given to the harness can refer to, as
// listen: ${WALPOST_TEST_HTTP}.
const (
	EnvHTTP  = "WALPOST_TEST_HTTP"  // address for http.listen
	EnvAdmin = "WALPOST_TEST_ADMIN" // address for admin.listen
)

const walpostPackage = "github.com/walpost/walpost/cmd/walpost"

// commandTimeout bounds a walpost command other than run.
const commandTimeout = time.Minute

// binaries are walpost and its variants, each built once per test process.
type binaries struct {
	mu    sync.Mutex
	dir   *process.Dir
	built map[string]built // by package
}

type built struct {
	path string
	err  error
}

func (b *binaries) build(pkg string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.built == nil {
		dir, err := process.NewDir("", "walpost-bin-")
		if err != nil {
			return "", err
		}
		b.dir, b.built = dir, map[string]built{}
	}
	result, done := b.built[pkg]
	if !done {
		result = compile(pkg, b.dir.Path)
		b.built[pkg] = result
	}
	return result.path, result.err
}

// compile has the race detector in it where the tests run with it.
func compile(pkg, dir string) built {
	path := filepath.Join(dir, filepath.Base(pkg))
	args := []string{"build", "-o", path}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, pkg)...).CombinedOutput() //nolint:gosec // our own arguments
	if err != nil {
		err = fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return built{path, err}
}

func (b *binaries) remove() error {
	if b.dir == nil {
		return nil
	}
	return b.dir.Remove()
}

// Relay is a running `walpost run`.
type Relay struct {
	t     testing.TB
	child *process.Child
	log   *log
	http  string // host:port
	admin string
}

// StartRelay starts `walpost run` with a configuration, and with env, lines of
// NAME=value, over the test's own environment. It does not wait until the relay
// is ready. A relay that still runs at the test's end is killed; its log is
// shown if the test failed, unless it was killed before: there may be hundreds.
func StartRelay(t testing.TB, yaml string, env ...string) *Relay {
	t.Helper()
	return StartVariant(t, walpostPackage, yaml, env...)
}

// StartVariant is StartRelay for a binary other than the production one, named
// by its package.
func StartVariant(t testing.TB, pkg, yaml string, env ...string) *Relay {
	t.Helper()
	r := &Relay{t: t, log: &log{}, http: freeAddr(t), admin: freeAddr(t)}
	cmd := walpost(t, pkg, append(env, EnvHTTP+"="+r.http, EnvAdmin+"="+r.admin), "run", "-c", configFile(t, yaml))
	cmd.Stdout, cmd.Stderr = r.log, r.log
	child, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	r.child = child
	t.Cleanup(r.cleanup)
	return r
}

// RunWalpost runs a walpost command to its end and returns its exit code and
// what it wrote. A configuration that is not empty is passed as -c FILE.
func RunWalpost(t testing.TB, yaml string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if yaml != "" {
		args = append(args, "-c", configFile(t, yaml))
	}
	var out, errs bytes.Buffer
	cmd := walpost(t, walpostPackage, []string{EnvHTTP + "=127.0.0.1:0", EnvAdmin + "=127.0.0.1:0"}, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	child, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-child.Done():
	case <-time.After(commandTimeout):
		_ = child.Signal(syscall.SIGKILL)
		<-child.Done()
		t.Fatalf("walpost %v did not end within %s:\n%s", args, commandTimeout, errs.String())
	}
	return child.ExitCode(), out.String(), errs.String()
}

func walpost(t testing.TB, pkg string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := current.binaries.build(pkg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...) //nolint:gosec // what we have built
	// A binary with the race detector would sleep for a second at its end.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, os.Environ()...)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func configFile(t testing.TB, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "walpost.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(t)))
}

// URL is the base address of the HTTP listener, without a slash at its end.
func (r *Relay) URL() string { return "http://" + r.http }

// AdminURL is the base address of the admin listener.
func (r *Relay) AdminURL() string { return "http://" + r.admin }

// Pid is the relay's process id.
func (r *Relay) Pid() int { return r.child.Pid() }

// Log is what the relay has written so far.
func (r *Relay) Log() string { return r.log.String() }

// SIGTERM asks the relay to stop.
func (r *Relay) SIGTERM() { r.t.Helper(); r.signal(syscall.SIGTERM) }

// Pause stops the relay's process where it is, as a stalled machine would.
func (r *Relay) Pause() { r.t.Helper(); r.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (r *Relay) Resume() { r.t.Helper(); r.signal(syscall.SIGCONT) }

// Kill ends the relay with SIGKILL and waits until it is gone.
func (r *Relay) Kill() {
	r.t.Helper()
	r.signal(syscall.SIGKILL)
	<-r.child.Done()
}

func (r *Relay) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.child.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// Done is closed when the relay has ended.
func (r *Relay) Done() <-chan struct{} { return r.child.Done() }

// Wait waits for the relay's end and returns its exit code, -1 after a signal.
func (r *Relay) Wait(timeout time.Duration) int {
	r.t.Helper()
	select {
	case <-r.child.Done():
		return r.child.ExitCode()
	case <-time.After(timeout):
		r.t.Fatalf("the relay did not end within %s", timeout)
		return 0
	}
}

// WaitReady polls /readyz until it says 200. It fails the test when the relay
// ends, or timeout passes, before.
func (r *Relay) WaitReady(timeout time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		code, body, err := r.Get("/readyz?verbose")
		if code == http.StatusOK {
			return
		}
		select {
		case <-r.child.Done():
			r.t.Fatalf("the relay ended with code %d before it was ready", r.child.ExitCode())
		case <-ctx.Done():
			r.t.Fatalf("the relay is not ready within %s: code %d, %s, %v", timeout, code, body, err)
		case <-tick.C:
		}
	}
}

// Get asks the HTTP listener for a path. Code 0 means that it did not answer.
func (r *Relay) Get(path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL()+path, nil)
	if err != nil {
		return 0, "", err
	}
	// No idle connection may be left: the next relay may get the same port.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), errors.Join(err, response.Body.Close())
}

func (r *Relay) cleanup() {
	select {
	case <-r.child.Done():
		if r.child.ExitCode() < 0 {
			return
		}
	default:
	}
	if err := r.child.Signal(syscall.SIGKILL); err != nil {
		r.t.Error(err)
	}
	<-r.child.Done()
	if r.t.Failed() {
		r.t.Logf("log of the relay (pid %d):\n%s", r.Pid(), lastLines(r.Log(), 80))
	}
}

// log collects what a process writes, for readers at any time.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
