// Package harness gives tests real servers, the relay as a real process, and
// load whose fate can be checked.
//
// Servers come from containers or native processes, one kind for a whole run
// (package servers chooses). Shared ones are started when the first test asks
// and live until the test process ends: each test gets a database, and names
// of topics, of its own. Dedicated ones belong to one test, which may stop,
// kill and pause them.
//
// A package of tests that uses servers has
//
//	func TestMain(m *testing.M) { harness.Main(m) }
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/test/harness/servers"
)

// startTimeout covers a download or pull on a machine that has nothing yet.
const startTimeout = 5 * time.Minute

// shared is what the tests of this process share.
type shared struct {
	mu       sync.Mutex
	set      *servers.Set
	chosen   error
	pg       map[Release]*servers.Server
	kafka    map[Release]*servers.Server
	binaries binaries
}

// current is the one instance: tests have no other way to share.
var current = shared{pg: map[Release]*servers.Server{}, kafka: map[Release]*servers.Server{}}

// Main runs a package's tests, ends the servers they shared, and fails if a
// goroutine is left behind that is not known to stay.
func Main(m *testing.M, known ...goleak.Option) {
	code := m.Run()
	if err := errors.Join(current.close(), leaks(code, known)); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// leaks looks for goroutines only after success: a failed test may have left
// some, and its own message matters more.
func leaks(code int, known []goleak.Option) error {
	if code != 0 {
		return nil
	}
	return goleak.Find(known...)
}

// servers returns the choice, made at the first call.
func (s *shared) servers(ctx context.Context) (*servers.Set, error) {
	if s.set == nil && s.chosen == nil {
		s.set, s.chosen = servers.Choose(ctx, notice)
	}
	return s.set, s.chosen
}

// choice is servers for those who don't hold the lock.
func (s *shared) choice(ctx context.Context) (*servers.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers(ctx)
}

// notice tells what takes long, past the tests' captured output.
func notice(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, kind := range []map[Release]*servers.Server{s.pg, s.kafka} {
		for _, server := range kind {
			errs = append(errs, server.Remove(ctx))
		}
	}
	if s.set != nil {
		errs = append(errs, s.set.Close())
	}
	return errors.Join(append(errs, s.binaries.remove())...)
}

// Mode says where servers come from: a few tests can only be told apart by it.
func Mode(t testing.TB) servers.Mode {
	t.Helper()
	set, err := current.choice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set.Mode()
}

// one returns the shared server of a release, started if need be.
func (s *shared) one(kind map[Release]*servers.Server, release Release, start func(context.Context, *servers.Set) (*servers.Server, error)) (*servers.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server := kind[release]; server != nil {
		return server, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	set, err := s.servers(ctx)
	if err != nil {
		return nil, err
	}
	server, err := start(ctx, set)
	if err == nil {
		kind[release] = server
	}
	return server, err
}

// begin gives a test the time, and the kind of servers, to start its own.
func (s *shared) begin(t testing.TB) (context.Context, *servers.Set, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	set, err := s.choice(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return ctx, set, cancel
}

// dedicated starts a server that belongs to t.
func (s *shared) dedicated(t testing.TB, start func(context.Context, *servers.Set) (*servers.Server, error)) *servers.Server {
	t.Helper()
	ctx, set, cancel := s.begin(t)
	defer cancel()
	server, err := start(ctx, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { retire(t, server) })
	return server
}

// retire removes a dedicated server and shows its log where the test failed.
func retire(t testing.TB, server *servers.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.Failed() {
		t.Logf("log of %s:\n%s", server.Version, lastLines(server.Log(ctx), 60))
	}
	if err := server.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// retireGroup retires servers and gives their places up. A server that was
// removed is nil.
func retireGroup(t testing.TB, group *servers.Group, nodes ...*servers.Server) {
	t.Helper()
	for _, node := range nodes {
		if node != nil {
			retire(t, node)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := group.Close(ctx); err != nil {
		t.Error(err)
	}
}
