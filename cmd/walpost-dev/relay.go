package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/walpost/walpost/test/harness/process"
)

// Times given to a relay.
const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 25 * time.Second // its own shutdown_timeout is 20 s
	readyPoll    = 10 * time.Millisecond
)

// configuration is a whole walpost.yaml: the two addresses are all it needs,
// the rest keeps out of the way of a walpost that may run here already.
const configuration = `version: 1
pipeline: open_trainings
postgres: {url: %q}
kafka: {brokers: [%q]}
http: {listen: %q}
`

// relaySetup is what every relay of the demo is started with.
type relaySetup struct {
	program string // this one
	config  string // path of walpost.yaml
	log     string // path; relays append to it
	address string // of its HTTP
}

// newRelaySetup writes the configuration into dir.
func newRelaySetup(dir, postgres, kafka string) (*relaySetup, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	s := &relaySetup{
		program: program,
		config:  filepath.Join(dir, "walpost.yaml"),
		log:     filepath.Join(dir, "relay.log"),
		address: fmt.Sprintf("127.0.0.1:%d", port),
	}
	if err := os.WriteFile(s.config, fmt.Appendf(nil, configuration, postgres, kafka, s.address), 0o600); err != nil {
		return nil, fmt.Errorf("write walpost.yaml: %w", err)
	}
	return s, nil
}

// relay is a relay in a process of its own, which ends with this one.
type relay struct {
	setup    *relaySetup
	child    *process.Child
	expected atomic.Bool // its end is our doing
}

// start starts a relay. failed is told if it ends by itself.
func (s *relaySetup) start(failed func(error)) (*relay, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the relay's log: %w", err)
	}
	defer log.Close()                                       //nolint:errcheck // the child has its own descriptor
	cmd := exec.Command(s.program, "relay", "-c", s.config) //nolint:gosec,noctx // this program; its Child ends it
	cmd.Stdout, cmd.Stderr = log, log
	child, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start the relay: %w", err)
	}
	r := &relay{setup: s, child: child}
	go r.watch(failed)
	return r, nil
}

// watch ends with the process, whom somebody always ends and waits for.
func (r *relay) watch(failed func(error)) {
	<-r.child.Done()
	if !r.expected.Load() {
		failed(fmt.Errorf("the relay ended by itself: %w", endOf(r.child)))
	}
}

func endOf(child *process.Child) error {
	if err := child.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// ready waits until the relay streams.
func (r *relay) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for !r.answers(ctx, client) {
		select {
		case <-r.child.Done():
			return fmt.Errorf("wait for the relay: it ended: %w", endOf(r.child))
		case <-ctx.Done():
			return fmt.Errorf("wait for the relay: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

func (r *relay) answers(ctx context.Context, client *http.Client) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.setup.address+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// kill ends the relay as a crash would, and waits until it is gone.
func (r *relay) kill() error {
	r.expected.Store(true)
	return r.child.End(process.Step{Signal: syscall.SIGKILL, Wait: stopTimeout})
}

// stop asks the relay to drain and end, as an orchestrator would.
func (r *relay) stop() error {
	r.expected.Store(true)
	err := r.child.End(process.Step{Signal: syscall.SIGTERM, Wait: stopTimeout}, process.Step{Signal: syscall.SIGKILL, Wait: stopTimeout})
	if err != nil {
		return fmt.Errorf("stop the relay: %w", err)
	}
	if code := r.child.ExitCode(); code != 0 {
		return fmt.Errorf("stop the relay: exit code %d (-1: it had to be killed), want 0", code)
	}
	return nil
}

// lastWords is the end of the relays' log.
func (s *relaySetup) lastWords(lines int) string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
