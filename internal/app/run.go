package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/telemetry"
	"github.com/walpost/walpost/relay"
)

// Run relays until ctx ends, which returns nil, or until the relay may not go
// on, which returns a *relay.StopError. Log lines go to logs.
func Run(ctx context.Context, cfg *config.Config, logs io.Writer) error {
	return RunAltered(ctx, cfg, logs, func(*relay.Config) {})
}

// RunAltered is Run for tests that stand between the relay and its ends: alter may
// replace what the relay is made of.
func RunAltered(ctx context.Context, cfg *config.Config, logs io.Writer, alter func(*relay.Config)) error {
	log := newLogger(cfg, logs)
	supervisor, handler, err := assemble(cfg, log, alter)
	if err != nil {
		return err
	}
	build := telemetry.ReadBuild()
	log.Info("walpost", "version", build.Version, "revision", build.Revision, "postgres", cfg.Postgres.URL.String(), "brokers", cfg.Kafka.Brokers)
	stopServing, err := serve(ctx, cfg.HTTP.Listen, handler, log)
	if err != nil {
		return err
	}
	err = supervisor.Run(ctx)
	if err != nil && cfg.OnStop == config.OnStopHold {
		log.Warn("holding: the slot is free, the condition stays on view; stop walpost to end", "on_stop", cfg.OnStop)
		<-ctx.Done()
	}
	return errors.Join(err, stopServing())
}

// assemble makes the relay and what shows it.
func assemble(cfg *config.Config, log *slog.Logger, alter func(*relay.Config)) (*relay.Supervisor, http.Handler, error) {
	sink, err := kafkaSink(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	var supervisor *relay.Supervisor
	status := func() relay.Status { return supervisor.Status() }
	metrics := telemetry.NewMetrics(cfg.Pipeline, shard, telemetry.ReadBuild(), status)
	parts := relayConfig(cfg, sink, log, metrics)
	alter(&parts)
	supervisor, err = relay.NewSupervisor(parts)
	if err != nil {
		return nil, nil, fmt.Errorf("assemble the relay: %w", err)
	}
	return supervisor, telemetry.Handler(status, metrics.Handler()), nil
}

// serve starts HTTP on the address, if there is one, and returns what ends it.
// HTTP outlives ctx: while the relay winds up its state is still on view.
func serve(ctx context.Context, address string, handler http.Handler, log *slog.Logger) (stop func() error, err error) {
	if address == "" {
		return func() error { return nil }, nil
	}
	var listener net.Listener
	if listener, err = telemetry.Listen(ctx, address); err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		err := telemetry.Serve(serving, listener, handler, log)
		if err != nil {
			log.Error("http has ended; health and metrics can't be seen any more", "error", err.Error())
		}
		ended <- err
	}()
	return func() error {
		cancel()
		return <-ended
	}, nil
}

func newLogger(cfg *config.Config, logs io.Writer) *slog.Logger {
	f, isFile := logs.(*os.File)
	return telemetry.NewLogger(logs, cfg.Log.Level, cfg.Log.Format, isFile && telemetry.IsTerminal(f))
}
