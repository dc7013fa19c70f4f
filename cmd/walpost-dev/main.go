// walpost-dev shows walpost at work on a machine that has nothing but Go: a
// private Postgres, a Kafka inside this process, an application, the relay and
// a consumer, none of which outlives it. It is no part of a deployment.
package main

import (
	"fmt"
	"os"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code. Being stopped is no failure, as with `walpost run`.
func run(args []string) int {
	ctx, stop := untilStopped()
	defer stop()
	root := newCommand()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "walpost-dev:", err)
		return exitCode(err)
	}
	return 0
}
