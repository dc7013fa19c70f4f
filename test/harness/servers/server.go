// Package servers gets the Postgres and Kafka servers that the tests run on. It
// makes one choice for a whole run: containers, where a Docker engine answers
// and has or can pull the images, else native processes. Either kind is real
// Postgres and real Kafka, and looks the same to the tests: a Server with an
// address that it keeps however often it is stopped, killed or paused.
package servers

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Release picks one of the versions that the tests run on.
type Release int

// The newest and the oldest supported version.
const (
	Newest Release = iota
	Oldest
)

// readyTimeout bounds how long a started server may take until it serves.
const readyTimeout = 90 * time.Second

// backend is what runs a server's processes.
type backend interface {
	start(context.Context) error
	stop(context.Context) error // gracefully, and by force where that takes too long
	kill(context.Context) error
	pause(context.Context) error
	resume(context.Context) error
	remove(context.Context) error
	log(context.Context) string
	ended(context.Context) bool // by itself
}

// Server is a started server. Its methods are not for concurrent use.
type Server struct {
	// Addr is host:port, the same for the server's whole life.
	Addr string
	// Version says what runs, an image's name or a version number.
	Version string

	name string // for errors
	run  backend
	ping func(ctx context.Context, addr string) error
}

// Start starts a server that was stopped or killed and waits until it serves.
func (s *Server) Start(ctx context.Context) error {
	if err := s.run.start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return s.await(ctx)
}

// Stop shuts the server down as an operator would. After twenty seconds it is
// killed.
func (s *Server) Stop(ctx context.Context) error { return s.wrap("stop", s.run.stop(ctx)) }

// Kill ends the server with SIGKILL.
func (s *Server) Kill(ctx context.Context) error { return s.wrap("kill", s.run.kill(ctx)) }

// Restart stops and starts the server.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause freezes the server: its connections stay open and nothing answers.
func (s *Server) Pause(ctx context.Context) error { return s.wrap("pause", s.run.pause(ctx)) }

// Unpause ends a Pause.
func (s *Server) Unpause(ctx context.Context) error { return s.wrap("unpause", s.run.resume(ctx)) }

// Remove ends the server and removes its data.
func (s *Server) Remove(ctx context.Context) error { return s.wrap("remove", s.run.remove(ctx)) }

// Log is what the server has written so far.
func (s *Server) Log(ctx context.Context) string { return s.run.log(ctx) }

func (s *Server) wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, s.name, err)
}

// await polls until the server answers a client, or has ended.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.pingOnce(ctx)
		if err == nil {
			return nil
		}
		if s.run.ended(ctx) {
			return fmt.Errorf("start %s: it ended by itself:\n%s", s.name, tail(s.Log(ctx)))
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("start %s: it does not serve: %w", s.name, ctx.Err()), err)
		case <-tick.C:
		}
	}
}

func (s *Server) pingOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return s.ping(ctx, s.Addr)
}

// tail is the end of a log, where the reason is.
func tail(log string) string {
	const most = 4000
	if len(log) > most {
		return "…" + log[len(log)-most:]
	}
	return log
}
