// Command servers tells where the tests of this machine get their servers from,
// and checks afterwards that they did.
//
//	servers choose                 prints the choice, and on standard output its mode
//	servers check MODE FILE        fails unless the report FILE shows servers of MODE
//	servers fetch postgres MAJOR   prints the bin directory of downloaded binaries
//	servers fetch kafka VERSION    prints the directory of downloaded jars
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/walpost/walpost/test/harness/kafkaembed"
	"github.com/walpost/walpost/test/harness/pgembed"
	"github.com/walpost/walpost/test/harness/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "choose":
		return choose(ctx)
	case len(args) == 3 && args[0] == "check":
		return check(servers.Mode(args[1]), args[2])
	case len(args) == 3 && args[0] == "fetch":
		return fetch(ctx, args[1], args[2])
	}
	return errors.New("usage: servers choose | servers check MODE FILE | servers fetch postgres MAJOR | servers fetch kafka VERSION")
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func choose(ctx context.Context) error {
	set, err := servers.Choose(ctx, logf)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, set.Describe())
	fmt.Println(set.Mode())
	return set.Close()
}

func check(mode servers.Mode, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("no server was started: %w", err)
	}
	summary, err := servers.CheckReport(string(text), mode)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, summary)
	return nil
}

func fetch(ctx context.Context, kind, version string) error {
	dir, err := find(ctx, kind, version)
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

func find(ctx context.Context, kind, version string) (string, error) {
	switch kind {
	case "postgres":
		major, err := strconv.Atoi(version)
		if err != nil {
			return "", fmt.Errorf("%q is no major version of Postgres", version)
		}
		return pgembed.Find(ctx, pgembed.Search{Major: major, Portable: true, Logf: logf})
	case "kafka":
		return kafkaembed.Libs(ctx, pgembed.CacheDir(), version, logf)
	}
	return "", fmt.Errorf("fetch %q: want postgres or kafka", kind)
}
