package main

import "context"

// task is something that runs beside the story until it is stopped. Its owner
// stops it.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // read after done
}

// begin starts a task. failed is told if it ends with an error.
func begin(ctx context.Context, run func(context.Context) error, failed func(error)) *task {
	ctx, cancel := context.WithCancel(ctx)
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		if t.err = run(ctx); t.err != nil {
			failed(t.err)
		}
	}()
	return t
}

// stop ends the task and waits for it. It may be called again.
func (t *task) stop() error {
	t.cancel()
	<-t.done
	return t.err
}
