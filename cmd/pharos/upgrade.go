package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
)

func newUpgrade() *cobra.Command {
	var socket, format string
	var r admin.UpgradeRequest
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Hand the running node over to a new process",
		Long: `Upgrade starts the program file anew, with the same arguments and configuration file, and
hands everything over: the listening sockets, the BGP sessions, the name in the cluster, the state
folder. No connection and no query is lost: the old process finishes the connections that it has,
and the new one takes the next. The routes stay.

If the new process does not get ready, for whatever reason, it is killed, the old one serves on as
before, and the reason is printed. The version of a BGP child that is handed over stays the old
one's until the next restart.`,
		Example: "  pharos upgrade                              # after the file of the running program was replaced\n" +
			"  pharos upgrade --binary /opt/pharos/2.0/pharos --drain 10m",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			if r.Binary != "" {
				path, err := filepath.Abs(r.Binary)
				if err != nil {
					return err
				}
				r.Binary = path
			}
			result, err := findClient(cmd, socket).Upgrade(cmd.Context(), r)
			if err != nil {
				return fmt.Errorf("not upgraded, the old process serves on: %w", err)
			}
			if format == formatJSON {
				return writeJSON(cmd.OutOrStdout(), result)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "upgraded: process %d (%s) serves; %d finishes its connections, for %s at most\n",
				result.PID, result.Version, result.OldPID, r.Drain.Round(time.Second))
			return nil
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	f := cmd.Flags()
	f.StringVar(&r.Binary, "binary", "", "program file to start (default: the one that the node was started from)")
	f.DurationVar(&r.Limit, "timeout", node.DefaultUpgradeLimit, "how long the new process may take to be ready")
	f.DurationVar(&r.Drain, "drain", node.DefaultUpgradeDrain, "how long the old process may take to finish its connections")
	return cmd
}
