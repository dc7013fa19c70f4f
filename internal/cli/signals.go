package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// sameSignal is for how long a further signal counts as the first one repeated:
// some senders signal a process and its group, and it gets both.
const sameSignal = time.Second

// Signals returns a context that the first SIGTERM or SIGINT ends; at a second
// one, a second or more later, it calls exit. stop gives the signals back and
// waits until nothing listens to them any more.
func Signals(parent context.Context, exit func()) (ctx context.Context, stop func()) {
	return signalsApart(parent, sameSignal, exit)
}

func signalsApart(parent context.Context, apart time.Duration, exit func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2) // both may come before either is looked at
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var listener sync.WaitGroup
	listener.Go(func() {
		var first time.Time
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			switch {
			case first.IsZero():
				first = time.Now()
				cancel()
			case time.Since(first) >= apart:
				exit()
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		listener.Wait()
		cancel()
	}
}
