package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// parentPoll is how soon the death of the parent is noticed.
const parentPoll = 250 * time.Millisecond

// untilStopped returns a context that ends when somebody wants the process to
// end: by a signal, unless it was started to ignore that, or because whoever
// started it is gone, so that a killed `make demo` leaves nothing behind. A
// second signal ends the process at once.
func untilStopped() (context.Context, context.CancelFunc) {
	var heeded []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			heeded = append(heeded, s)
		}
	}
	if heeded == nil { // none would mean every signal to NotifyContext
		heeded = []os.Signal{syscall.SIGTERM}
	}
	ctx, stop := signal.NotifyContext(context.Background(), heeded...)
	context.AfterFunc(ctx, stop)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchParent(ctx, stop)
	}()
	return ctx, func() { stop(); <-watched }
}

// watchParent calls stop when the process has got another parent, which is how
// the death of the first one shows.
func watchParent(ctx context.Context, stop func()) {
	parent := os.Getppid()
	tick := time.NewTicker(parentPoll)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	stop()
}
