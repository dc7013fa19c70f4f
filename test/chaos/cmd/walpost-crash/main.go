// Command walpost-crash is walpost, but for one thing: it kills itself with
// SIGKILL when it reaches a point of its life for the n-th time, as
// WALPOST_CRASH_POINT=after-send and WALPOST_CRASH_ARRIVAL=3 say.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/cli"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/test/crash"
)

func main() {
	reach, err := killer(os.Getenv("WALPOST_CRASH_POINT"), os.Getenv("WALPOST_CRASH_ARRIVAL"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "walpost-crash:", err)
		os.Exit(relay.ExitUsage)
	}
	ctx, stop := cli.Signals(context.Background(), func() { os.Exit(relay.ExitFailed) })
	code := cli.Execute(ctx, cli.Commands{Run: doomed(reach), Init: app.Init}, os.Args[1:],
		cli.Environment{Out: os.Stdout, Err: os.Stderr, Lookup: os.LookupEnv})
	stop()
	os.Exit(code)
}

// doomed is app.Run between whose relay and ends reach stands.
func doomed(reach crash.Reach) func(context.Context, *config.Config, io.Writer) error {
	return func(ctx context.Context, cfg *config.Config, logs io.Writer) error {
		return app.RunAltered(ctx, cfg, logs, func(parts *relay.Config) {
			parts.Source = crash.Connector(parts.Source, reach)
			parts.Sink = crash.Sink(parts.Sink, reach)
		})
	}
}

// killer ends the process at the n-th arrival, counted over all goroutines.
func killer(name, arrival string) (crash.Reach, error) {
	point := crash.Point(name)
	if !slices.Contains(crash.Points(), point) {
		return nil, fmt.Errorf("%q is no point; there are %v", name, crash.Points())
	}
	last, err := strconv.ParseInt(arrival, 10, 64)
	if err != nil || last < 1 {
		return nil, fmt.Errorf("%q is no number of an arrival: the first is 1", arrival)
	}
	var arrivals atomic.Int64
	return func(reached crash.Point) {
		if reached == point && arrivals.Add(1) == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // can't fail
			select {}                                      // the goroutine must not go on until it does
		}
	}, nil
}
