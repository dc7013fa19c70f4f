// Package cli is walpost's command line: flags in, exit code out. There is a
// file per subcommand; none does more than read its flags, load the
// configuration and call what it was given for the work.
//
// Exit codes are relay's: 0 done or stopped as asked, 1 failed, 2 command line
// or configuration, 3 stopped because continuity is in doubt. An error decides
// by its ExitCode method.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/walpost/walpost/internal/app"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/relay"
)

// Commands is the work behind the subcommands that do any.
type Commands struct {
	// Run relays until ctx ends. Log lines go to logs.
	Run func(ctx context.Context, cfg *config.Config, logs io.Writer) error
	// Init prepares a pipeline and says on out what it did.
	Init func(ctx context.Context, cfg *config.Config, opts app.InitOptions, out io.Writer) error
}

// Environment is what a process is given beside its arguments.
type Environment struct {
	Out    io.Writer
	Err    io.Writer
	Lookup config.Environ
}

// Execute runs the command that args name, without the program's name, and
// returns the exit code. An error is printed once, to env.Err.
func Execute(ctx context.Context, commands Commands, args []string, env Environment) int {
	c := &cli{Commands: commands, Environment: env}
	err := c.execute(ctx, args)
	if err == nil {
		return relay.ExitOK
	}
	_, _ = fmt.Fprintf(env.Err, "walpost: %v\n", err)
	var remedied interface{ Remedy() string }
	if errors.As(err, &remedied) && remedied.Remedy() != "" {
		_, _ = fmt.Fprintf(env.Err, "remedy: %s\n", remedied.Remedy())
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return relay.ExitFailed
}

// cli is one invocation.
type cli struct {
	Commands
	Environment
	configFlag string
	began      bool // the command line was accepted
}

func (c *cli) execute(ctx context.Context, args []string) error {
	root := c.root(ctx)
	root.SetArgs(args)
	err := root.Execute()
	if err != nil && !c.began {
		return &usageError{err}
	}
	return err
}

func (c *cli) root(ctx context.Context) *cobra.Command {
	root := &cobra.Command{
		Use:   "walpost",
		Short: "Relay the events of a transactional outbox from Postgres to Kafka",
		Long: "walpost relays the events of a transactional outbox from the Postgres write-ahead log to Kafka.\n\n" +
			"Exit codes: 0 done or stopped as asked, 1 failed, 2 command line or configuration, 3 stopped because it can't be proven that nothing was lost.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRun:  func(*cobra.Command, []string) { c.began = true },
		RunE: func(*cobra.Command, []string) error {
			return &usageError{errors.New("a command is missing")}
		},
	}
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.PersistentFlags().StringVarP(&c.configFlag, "config", "c", "", "configuration `FILE` (default $"+config.PathVariable+", else "+config.DefaultPath+")")
	root.AddCommand(c.run(ctx), c.initialise(ctx), c.validate(), c.version())
	return root
}

// load reads the configuration that the command line or the environment names.
func (c *cli) load() (path string, cfg *config.Config, err error) {
	path = config.ResolvePath(c.configFlag, c.Lookup)
	cfg, err = config.Load(path, c.Lookup)
	return path, cfg, err
}

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string  { return e.err.Error() }
func (e *usageError) Unwrap() error  { return e.err }
func (e *usageError) ExitCode() int  { return relay.ExitUsage }
func (e *usageError) Remedy() string { return "`walpost --help` lists commands and flags" }
