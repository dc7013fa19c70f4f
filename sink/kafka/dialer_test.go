package kafka

import (
	"errors"
	"net"
	"testing"
	"time"
)

func TestCutEndsEveryConnectionAndRefusesNewOnes(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()

	d := newDialer(time.Second)
	used, err := d.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	closed, err := d.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if len(d.conns) != 1 {
		t.Errorf("%d connections are known, one is open", len(d.conns))
	}

	d.cut()
	if _, err := used.Write([]byte("late")); err == nil {
		t.Error("a connection that was cut can be written to")
	}
	if _, err := d.Dial("tcp", server.Addr().String()); err == nil {
		t.Error("a dialer that was cut connects")
	}
	d.cut() // may be repeated
	for range 2 {
		_ = (<-accepted).Close()
	}
}

// A connection that comes about while the dialer is cut must not survive.
func TestConnectionMadeDuringCutIsDropped(t *testing.T) {
	d := newDialer(time.Second)
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	d.mu.Lock()
	d.conns = nil
	d.mu.Unlock()
	if _, err := d.track(ours, "broker:9092"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("tracked: %v", err)
	}
	if _, err := ours.Write([]byte("late")); err == nil {
		t.Error("the connection still works")
	}
	d.cut()
}
