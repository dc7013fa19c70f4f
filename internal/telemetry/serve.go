package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Times after which the server gives a client up: it answers small requests
// of probes and scrapers, and a slow client must not hold a connection.
const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 10 * time.Second
	responseTimeout = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	closeTimeout    = 5 * time.Second
)

// Listen opens the address that http.listen names, so that one in use is
// found before the relay starts.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &listenError{address, err}
	}
	return l, nil
}

// Serve answers requests until ctx ends, then waits a few seconds for those
// under way. It closes the listener, and returns nil when it was asked to end.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("serving http", "listen", l.Addr().String())
	served := make(chan error, 1) // one result, written even if nobody waits any more
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		_ = server.Close() // whoever is still connected is cut off
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	}
	return nil
}

type listenError struct {
	address string
	err     error
}

func (e *listenError) Error() string {
	return fmt.Sprintf("listen on %s for http: %v", e.address, e.err)
}
func (e *listenError) Unwrap() error { return e.err }
func (e *listenError) Remedy() string {
	return `set http.listen to a free address of this machine, or to "" for no HTTP`
}
func (e *listenError) Retryable() bool { return false }
