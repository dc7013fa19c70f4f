package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walpost/walpost/internal/telemetry"
)

func (c *cli) version() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, revision and Go version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			build := telemetry.ReadBuild()
			if asJSON {
				return json.NewEncoder(c.Out).Encode(build)
			}
			_, err := fmt.Fprintf(c.Out, "walpost %s, revision %s, %s\n", build.Version, build.Revision, build.GoVersion)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}
