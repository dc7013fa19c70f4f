package kafka

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// dialer makes every connection of a session, so that the session can end them
// all. It is sarama's Net.Proxy.Dialer.
type dialer struct {
	net net.Dialer

	// life is cancelled by cut, which interrupts dials in progress.
	life context.Context //nolint:containedctx // sarama dials without a context
	end  context.CancelCauseFunc

	pulse pulse
	work  sync.WaitGroup // of the goroutine that guard starts

	mu    sync.Mutex
	conns map[*trackedConn]struct{} // nil once cut
}

func newDialer(timeout time.Duration) *dialer {
	life, end := context.WithCancelCause(context.Background())
	return &dialer{
		net:   net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second},
		life:  life,
		end:   end,
		conns: map[*trackedConn]struct{}{},
	}
}

// Dial implements sarama's (golang.org/x/net/proxy's) Dialer.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	c, err := d.net.DialContext(d.life, network, addr)
	if err != nil {
		return nil, err
	}
	return d.track(c, addr)
}

func (d *dialer) track(c net.Conn, addr string) (net.Conn, error) {
	t := &trackedConn{Conn: c, owner: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns == nil {
		discard(c)
		return nil, fmt.Errorf("dial %s: the session has ended: %w", addr, net.ErrClosed)
	}
	d.conns[t] = struct{}{}
	return t, nil
}

// cut closes every connection and refuses new ones. Data still in a socket's
// send buffer is discarded. It may be called again.
func (d *dialer) cut() { d.cutFor(net.ErrClosed) }

func (d *dialer) cutFor(why error) {
	d.end(why)
	d.mu.Lock()
	conns := d.conns
	d.conns = nil
	d.mu.Unlock()
	for c := range conns {
		discard(c.Conn)
	}
}

// wait waits for d's goroutine after a cut.
func (d *dialer) wait() { d.work.Wait() }

func (d *dialer) isCut() bool { return d.life.Err() != nil }

// pace makes a backoff for sarama's retries: wait, but zero once the dialer is
// cut, when no attempt can succeed and waiting would only keep goroutines alive.
func (d *dialer) pace(wait func(retries int) time.Duration) func(retries, limit int) time.Duration {
	return func(retries, _ int) time.Duration {
		if d.isCut() {
			return 0
		}
		return wait(retries)
	}
}

func (d *dialer) forget(c *trackedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// discard closes c and drops what is still in its send buffer.
func discard(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

type trackedConn struct {
	net.Conn
	owner *dialer
}

func (c *trackedConn) Close() error {
	c.owner.forget(c)
	return c.Conn.Close()
}
