package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walpost/walpost/internal/app"
)

func (c *cli) initialise(ctx context.Context) *cobra.Command {
	var opts app.InitOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Prepare table, publication, slot and checkpoint of a pipeline",
		Long: "Make what a pipeline needs: the outbox table and the publication if they are missing, the replication slot, and the first checkpoint. It may be repeated.\n\n" +
			"Where the relay's role owns nothing, let an owner run what --print-sql prints, then run init for the rest.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkInit(opts); err != nil {
				return err
			}
			_, cfg, err := c.load()
			if err != nil {
				return err
			}
			return c.Init(ctx, cfg, opts, c.Out)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.PrintSQL, "print-sql", false, "print the SQL that needs an owner's rights, and do nothing")
	flags.BoolVar(&opts.DryRun, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&opts.AdoptSlot, "adopt-slot", false, "begin at the confirmed position of a slot that exists already")
	flags.StringVar(&opts.Existing, "existing", app.ExistingUndecided, "what to do with rows that are older than the slot: `ignore` leaves them unpublished")
	return cmd
}

func checkInit(opts app.InitOptions) error {
	if opts.PrintSQL && opts.DryRun {
		return &usageError{errors.New("--print-sql and --dry-run exclude each other")}
	}
	switch opts.Existing {
	case app.ExistingUndecided, app.ExistingIgnore:
		return nil
	case "backfill":
		return &usageError{errors.New("--existing=backfill comes with a later version of walpost; this one knows ignore")}
	}
	return &usageError{fmt.Errorf("--existing=%q: it must be ignore", opts.Existing)}
}
