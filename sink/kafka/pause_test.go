package kafka

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// testClock adds what a test says to the process's clocks.
type testClock struct {
	system     func() instant
	wall, mono atomic.Int64
}

func newTestClock() *testClock { return &testClock{system: systemClock()} }

func (c *testClock) now() instant {
	now := c.system()
	return instant{now.wall + time.Duration(c.wall.Load()), now.mono + time.Duration(c.mono.Load())}
}

// pause makes both clocks jump, as those of a process that was stopped.
func (c *testClock) pause(d time.Duration) {
	c.wall.Add(int64(d))
	c.mono.Add(int64(d))
}

// still is a clock that only a test moves.
func still(t *testing.T) (d *dialer, move func(wall, mono time.Duration)) {
	t.Helper()
	var now instant
	d = newDialer(time.Second)
	t.Cleanup(d.cut)
	d.pulse.limit, d.pulse.now = 3*time.Second, func() instant { return now }
	if err := d.pulse.beat(); err != nil {
		t.Fatal(err)
	}
	return d, func(wall, mono time.Duration) {
		now.wall += wall
		now.mono += mono
	}
}

// piped is a connection of d and what arrives at its other end.
func piped(t *testing.T, d *dialer) (net.Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	conn, err := d.track(ours, "broker:9092")
	if err != nil {
		t.Fatal(err)
	}
	return conn, theirs
}

func TestAPauseIsNoticedOnEitherClock(t *testing.T) {
	for name, c := range map[string]struct {
		wall, mono time.Duration
		paused     bool
	}{
		"stopped":                      {time.Minute, time.Minute, true},
		"suspended, monotonic stopped": {time.Minute, 0, true},
		"suspended, wall set back":     {-time.Hour, time.Minute, true},
		"a little more than the limit": {3*time.Second + 1, 0, true},
		"the limit":                    {3 * time.Second, 3 * time.Second, false},
		"wall set back":                {-time.Hour, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			for first, check := range map[string]func(d *dialer) error{
				"a beat":  func(d *dialer) error { return d.pulse.beat() },
				"a write": func(d *dialer) error { return d.alive() },
			} {
				d, move := still(t)
				move(c.wall, c.mono)
				if err := check(d); (err != nil) != c.paused {
					t.Errorf("first %s: %v", first, err)
				}
				// Beating again must not make up for it.
				for range 3 {
					if err := d.pulse.beat(); (err != nil) != c.paused {
						t.Errorf("first %s, then a beat: %v", first, err)
					}
				}
			}
		})
	}
}

func TestABeatThatAPauseInterrupts(t *testing.T) {
	d, move := still(t)
	slow := d.pulse.now
	d.pulse.now = func() instant {
		now := slow()
		move(time.Minute, time.Minute) // before it is stored
		return now
	}
	_ = d.pulse.beat()
	d.pulse.now = slow
	if err := d.alive(); err == nil {
		t.Error("the pause is forgotten")
	}
}

func TestNothingIsWrittenAfterAPause(t *testing.T) {
	d, move := still(t)
	conn, peer := piped(t, d)
	go func() { _, _ = conn.Write([]byte("before")) }()
	got := make([]byte, 6)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	move(time.Minute, time.Minute)
	n, err := conn.Write([]byte("after"))
	if condition, retryable, err := meaning(t, err); n != 0 || condition != "" || !retryable || !strings.Contains(err.Error(), "did not run for about 1m0s") {
		t.Errorf("%d bytes written, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	if rest, _ := io.ReadAll(peer); len(rest) > 0 {
		t.Errorf("the peer has got %q", rest)
	}
	if !d.isCut() {
		t.Error("the dialer connects anew")
	}
	if err := d.explain(errors.New("another")); !strings.Contains(err.Error(), "did not run") {
		t.Errorf("the reason is said to be: %v", err)
	}
}

// A large request that is half written is not completed.
func TestAPauseInTheMiddleOfAWrite(t *testing.T) {
	d, move := still(t)
	conn, peer := piped(t, d)
	var result error
	var written int
	var writing sync.WaitGroup
	writing.Go(func() { written, result = conn.Write(make([]byte, 4*writeChunk)) })
	first := make([]byte, writeChunk)
	if _, err := io.ReadFull(peer, first[:writeChunk-1]); err != nil { // the first chunk is still under way
		t.Fatal(err)
	}
	move(time.Minute, time.Minute)
	rest, _ := io.ReadAll(peer)
	writing.Wait()
	if len(rest) != 1 || written != writeChunk || result == nil {
		t.Errorf("%d bytes were written, %d after the pause: %v", written, len(rest), result)
	}
}

func TestAWriteOfSeveralChunksArrivesWhole(t *testing.T) {
	d, _ := still(t)
	conn, peer := piped(t, d)
	sent := make([]byte, 3*writeChunk+7)
	for i := range sent {
		sent[i] = byte(i % 251)
	}
	go func() {
		if n, err := conn.Write(sent); n != len(sent) || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
		_ = conn.Close()
	}()
	if got, err := io.ReadAll(peer); string(got) != string(sent) {
		t.Errorf("%d bytes arrived of %d: %v", len(got), len(sent), err)
	}
}

func TestLookingForAPauseAllocatesNothing(t *testing.T) {
	d := newDialer(time.Second)
	d.guard(time.Hour, systemClock(), slog.New(slog.DiscardHandler))
	defer d.wait()
	defer d.cut()
	conn := &trackedConn{Conn: nowhere{}, owner: d}
	b := make([]byte, 2*writeChunk)
	if allocs := fewestAllocs(func() { _, _ = conn.Write(b) }); allocs > 0 {
		t.Errorf("%v allocations in a write", allocs)
	}
}

// nowhere is a connection that takes everything.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// What a paused process has in its queues is never sent. The session says why it
// has ended, settles nothing any more, and can be followed by another.
func TestASessionThatWasPaused(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	clock, log := newTestClock(), &strings.Builder{}
	cfg := testConfig(cluster)
	cfg.clock, cfg.Logger = clock.now, slog.New(slog.NewTextHandler(log, nil))
	kafka := prepared(t, cfg)
	s, settled := opened(t, kafka)
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)

	arrived, hold := make(chan struct{}, 10), make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		arrived <- struct{}{}
		cluster.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	for i := range 100 {
		mustSend(t, s, event("topic", 0, i+1)) // the first is a request of its own, the others wait for its answer
		if i == 0 {
			<-arrived
		}
	}
	clock.pause(time.Minute)
	condition, retryable, err := outcome(t, s)
	close(hold)
	if condition != "" || !retryable || !strings.Contains(err.Error(), "did not run for about 1m") {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(settled) > 0 {
		t.Errorf("%d were settled after the pause", len(settled))
	}
	if got := cluster.PartitionInfo("topic", 0).HighWatermark; got > 2 {
		t.Errorf("%d messages were published; one before the pause, one was on its way", got)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "did not run") {
		t.Errorf("the log says: %s", log)
	}
	s, settled = opened(t, kafka)
	mustSend(t, s, event("topic", 0, 101))
	collect(t, s, settled, 1)
}

func TestAPauseDuringOpen(t *testing.T) {
	cluster := fakeCluster(t)
	clock := newTestClock()
	cfg := testConfig(cluster)
	cfg.clock = clock.now
	kafka := prepared(t, cfg)
	cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		clock.pause(time.Minute)
		return nil, nil, false
	})
	_, _, err := kafka.Open(t.Context(), nil)
	if condition, retryable, err := meaning(t, err); condition != "" || !retryable || !strings.Contains(err.Error(), "did not run") {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}
