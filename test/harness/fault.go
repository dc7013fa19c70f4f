package harness

import (
	"context"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness/servers"
)

// faultTimeout bounds one change of a server's state.
const faultTimeout = 2 * time.Minute

// Faulty is a dedicated server that a test can break. It keeps its address and
// data. What can't be done fails the test.
type Faulty struct {
	t      testing.TB
	server *servers.Server
}

// Stop shuts the server down in good order, by force after 20 s.
func (f Faulty) Stop() { f.t.Helper(); f.do(f.server.Stop) }

// Start starts the server again and waits until it serves.
func (f Faulty) Start() { f.t.Helper(); f.do(f.server.Start) }

// Restart is Stop and Start.
func (f Faulty) Restart() { f.t.Helper(); f.do(f.server.Restart) }

// Kill ends the server with SIGKILL.
func (f Faulty) Kill() { f.t.Helper(); f.do(f.server.Kill) }

// Pause freezes the server: connections stay open, nothing answers.
func (f Faulty) Pause() { f.t.Helper(); f.do(f.server.Pause) }

// Unpause ends a Pause.
func (f Faulty) Unpause() { f.t.Helper(); f.do(f.server.Unpause) }

// Log is what the server has written so far.
func (f Faulty) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
	defer cancel()
	return f.server.Log(ctx)
}

func (f Faulty) do(change func(context.Context) error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
	defer cancel()
	if err := change(ctx); err != nil {
		f.t.Fatal(err)
	}
}
