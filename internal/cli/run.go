package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (c *cli) run(ctx context.Context) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Relay events until stopped",
		Long: "Relay events from Postgres to Kafka until SIGTERM or SIGINT. What was sent is then acknowledged and confirmed, for at most shutdown_timeout; a second signal ends at once.\n\n" +
			"While Postgres or Kafka is away it keeps trying. It never creates a slot and never skips an event: `walpost init` prepares a pipeline.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, cfg, err := c.load()
			if err != nil {
				return err
			}
			return c.Run(ctx, cfg, c.Err)
		},
	}
}
