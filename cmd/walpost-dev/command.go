package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/telemetry"
)

const defaultDuration = 15 * time.Second

// shortest leaves a second on each side of the kill.
const shortest = 2 * time.Second

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "walpost-dev",
		Short:         "walpost at work, on this machine only",
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(demoCommand(), relayCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	return root
}

func demoCommand() *cobra.Command {
	var duration time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "An application, its outbox, walpost, Kafka and a consumer; walpost is killed half-way",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < shortest {
				return &usageError{fmt.Errorf("--duration %s: want %s or more", duration, shortest)}
			}
			return runDemo(cmd.Context(), newScreen(os.Stdout, colourful(os.Stdout)), duration)
		},
	}
	cmd.Flags().DurationVar(&duration, "duration", defaultDuration, "how long the application works")
	return cmd
}

// relayCommand is what the demo starts as a child of its own: exactly what
// `walpost run` does.
func relayCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:    "relay",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, os.LookupEnv)
			if err != nil {
				return err
			}
			return app.Run(cmd.Context(), cfg, os.Stderr)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	return nil
}

type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }
func (u *usageError) ExitCode() int { return 2 }

// exitCode is what the error itself says, as in the production binary, or 1.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

// colourful follows https://no-color.org.
func colourful(out *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && telemetry.IsTerminal(out)
}
