package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) validate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration, without connecting to anything",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, cfg, err := c.load()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Out, "%s: ok\n"+
				"  pipeline  %s\n"+
				"  postgres  %s, slot %s, publication %s\n"+
				"  outbox    %s to %s\n"+
				"  kafka     %s, %s, checkpoint %s\n",
				path, cfg.Pipeline,
				cfg.Postgres.URL, cfg.Postgres.Slot, cfg.Postgres.Publication,
				cfg.Outbox.Table, cfg.Outbox.Topic,
				strings.Join(cfg.Kafka.Brokers, ","), cfg.Kafka.Delivery, cfg.Kafka.Checkpoint.Topic)
			return err
		},
	}
}
