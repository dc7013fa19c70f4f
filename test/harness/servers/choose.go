package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Mode is where servers come from.
type Mode string

// The modes, in the order they are tried.
const (
	Containers Mode = "containers"
	Native     Mode = "native"
)

// Environment variables that steer the choice.
const (
	// EnvServers forces a mode: what is forced and can't be had is an error.
	EnvServers = "WALPOST_TEST_SERVERS"
	// EnvReport names a file that gets a line for every server started.
	EnvReport = "WALPOST_TEST_REPORT"

	envPostgres    = "WALPOST_TEST_POSTGRES_IMAGE"
	envPostgresOld = "WALPOST_TEST_POSTGRES_OLD_IMAGE"
	envKafka       = "WALPOST_TEST_KAFKA_IMAGE"
	envKafkaOld    = "WALPOST_TEST_KAFKA_OLD_IMAGE"
)

// provider starts servers of one mode.
type provider interface {
	mode() Mode
	describe() string
	postgres(ctx context.Context, release Release, settings map[string]string) (*Server, error)
	kafka(ctx context.Context, release Release) (*Server, error)
	group(ctx context.Context, size int) (group, []int, error)
	close() error
}

// Set is the choice, and what starts servers after it.
type Set struct {
	provider
	why string // why it isn't the preferred mode; empty if it is
}

// Choose decides where this run's servers come from. logf is told what takes
// long.
func Choose(ctx context.Context, logf func(format string, args ...any)) (*Set, error) {
	switch forced := Mode(os.Getenv(EnvServers)); forced {
	case Containers:
		return only(newContainers(ctx, logf))
	case Native:
		return only(newNative(ctx, logf))
	case "":
		return preferContainers(ctx, logf)
	default:
		return nil, fmt.Errorf("%s=%s: want containers, native, or nothing to let the tests choose", EnvServers, forced)
	}
}

// only is for a forced mode: there is no fallback.
func only(p provider, err error) (*Set, error) {
	if err != nil {
		return nil, fmt.Errorf("%s=%s can't be met: %w", EnvServers, os.Getenv(EnvServers), err)
	}
	return &Set{provider: p}, nil
}

func preferContainers(ctx context.Context, logf func(string, ...any)) (*Set, error) {
	containers, noContainers := newContainers(ctx, logf)
	if noContainers == nil {
		return &Set{provider: containers}, nil
	}
	native, noNative := newNative(ctx, logf)
	if noNative != nil {
		return nil, fmt.Errorf("no servers to test on: %w", errors.Join(
			fmt.Errorf("containers: %w", noContainers), fmt.Errorf("native: %w", noNative)))
	}
	return &Set{provider: native, why: noContainers.Error()}, nil
}

// Mode is the chosen mode.
func (s *Set) Mode() Mode { return s.mode() }

// Describe says in a line or two what was chosen, and why not containers.
func (s *Set) Describe() string {
	text := fmt.Sprintf("servers: %s (%s)", s.mode(), s.describe())
	if s.why != "" {
		text += "\n         no containers: " + strings.ReplaceAll(s.why, "\n", "; ")
	}
	return text
}

// Postgres starts a Postgres with settings over those that every test wants.
func (s *Set) Postgres(ctx context.Context, release Release, settings map[string]string) (*Server, error) {
	server, err := s.postgres(ctx, release, postgresSettings(settings))
	return s.started(ctx, server, err)
}

// Kafka starts a broker.
func (s *Set) Kafka(ctx context.Context, release Release) (*Server, error) {
	server, err := s.kafka(ctx, release)
	return s.started(ctx, server, err)
}

// Close gives up what the choice holds. The servers must have been removed.
func (s *Set) Close() error { return s.close() }

// started waits until the server serves, and removes one that doesn't.
func (s *Set) started(ctx context.Context, server *Server, err error) (*Server, error) {
	if err != nil {
		return nil, err
	}
	err = server.await(ctx)
	if err == nil {
		err = report(s.mode(), server)
	}
	if err != nil {
		return nil, errors.Join(err, server.Remove(context.WithoutCancel(ctx)))
	}
	return server, nil
}
