// Command walpost relays the events of a transactional outbox from the
// Postgres write-ahead log to Kafka.
package main

import (
	"context"
	"os"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/cli"
	"github.com/walpost/walpost/relay"
)

func main() {
	ctx, stop := cli.Signals(context.Background(), func() { os.Exit(relay.ExitFailed) })
	code := cli.Execute(ctx, cli.Commands{Run: app.Run, Init: app.Init}, os.Args[1:],
		cli.Environment{Out: os.Stdout, Err: os.Stderr, Lookup: os.LookupEnv})
	stop()
	os.Exit(code)
}
