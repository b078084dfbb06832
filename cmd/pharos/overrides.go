package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
)

func newOverrides() *cobra.Command {
	var socket, format string
	var all bool
	cmd := &cobra.Command{
		Use:   "overrides",
		Short: "List the orders that stand",
		Long: `Overrides lists the standing orders of "drain", "down" and "up": on what, by whom, why,
since when and until when, and how many nodes hold them all on disk; and how far
each node has come with what is drained. Exit code 2 means that no majority holds
them.`,
		Example: "  pharos overrides\n  pharos overrides --all -o json      # those that were cleared too",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			list, err := findClient(cmd, socket).Overrides(cmd.Context(), all)
			if err != nil {
				return err
			}
			var drains *admin.DrainList
			if len(list.Overrides) > 0 {
				drains, err = findClient(cmd, socket).Drains(cmd.Context())
			}
			if err != nil { // a node of an older version does not know
				fmt.Fprintln(cmd.ErrOrStderr(), "pharos: how far what is drained has come is not known: "+err.Error())
			}
			if format == formatJSON {
				err = writeJSON(cmd.OutOrStdout(), overridesOutput{list, drains})
			} else {
				err = printOverrides(cmd.OutOrStdout(), list, time.Now())
			}
			if err == nil && format != formatJSON && drains != nil {
				err = printDrains(cmd.OutOrStdout(), drains)
			}
			if err == nil && 2*list.Acknowledged <= list.Of {
				return errDegraded
			}
			return err
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	cmd.Flags().BoolVar(&all, "all", false, "also those that were cleared or have ended")
	return cmd
}

// overridesOutput is what -o json prints.
type overridesOutput struct {
	*admin.OverrideList
	Drains *admin.DrainList `json:"drains,omitempty"`
}

func printOverrides(out io.Writer, list *admin.OverrideList, now time.Time) error {
	if len(list.Overrides) == 0 {
		fmt.Fprintln(out, "nothing is ordered: everything follows its checks")
	} else {
		w := newTable(out)
		fmt.Fprintln(w, "SCOPE\tORDER\tBY\tSINCE\tENDS\tREASON")
		for _, o := range list.Overrides {
			ends := "–"
			if !o.Until.IsZero() {
				ends = "in " + since(now, o.Until)
				if !o.Until.After(now) {
					ends = "now"
				}
			}
			reason := o.Reason
			if o.Unknown {
				reason += " (not in this node's configuration)"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", o.Scope, o.Order, o.By, ago(o.At, now), ends, reason)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	mark := ""
	if list.Acknowledged < list.Of {
		mark = "! "
	}
	_, err := fmt.Fprintf(out, "%sheld by %d of %s\n", mark, list.Acknowledged, count(list.Of, "node"))
	return err
}
