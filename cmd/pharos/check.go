package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

func newCheck() *cobra.Command {
	var socket, format string
	var local bool
	cmd := &cobra.Command{
		Use:   "check [TARGET]",
		Short: "Show who says what about a target, and the evidence",
		Long: `Check shows the verdict on each target with its votes, and below it what every
observer says: whether that counts and why not, what its newest probe found, when
and how fast. The evidence is asked of the observers at that moment.

A TARGET is SERVICE/SITE/backend/ADDRESS:PORT or SERVICE/SITE/vip/ADDRESS:PORT;
"*" and "?" match within one part, and the parts at the end may be left out:
web, web/fra, '*/*/vip'. Without one all are shown, at most 1000. Exit code 2 means that
a target shown is down.`,
		Example:           "  pharos check web/fra\n  pharos check '*/*/vip' --local     # this node's own evidence only\n  pharos check -o json",
		Args:              usageArgs(targetArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			request := admin.CheckRequest{Local: local}
			if len(args) == 1 {
				request.Target = args[0]
			}
			result, err := findClient(cmd, socket).Check(cmd.Context(), request)
			if err != nil {
				return err
			}
			if format == formatJSON {
				err = writeJSON(cmd.OutOrStdout(), result)
			} else {
				err = printCheck(cmd.OutOrStdout(), result, time.Now())
			}
			if err != nil {
				return err
			}
			for _, t := range result.Targets {
				if t.Status == health.StatusDown.String() {
					return errDegraded
				}
			}
			return nil
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	cmd.Flags().BoolVar(&local, "local", false, "do not ask the other nodes for their evidence")
	return cmd
}

func targetArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && args[0] == "" {
		return fmt.Errorf("the target is empty; leave it out for all targets")
	}
	return cobra.MaximumNArgs(1)(cmd, args)
}

func printCheck(out io.Writer, r *admin.CheckResult, now time.Time) error {
	for i, t := range r.Targets {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s is %s", t.Target, t.Status)
		if !t.Since.IsZero() {
			fmt.Fprintf(out, " for %s", since(t.Since, now))
		}
		fmt.Fprintf(out, ": %s (%d up, %d down, %d abstain)\n", t.Why, t.Up, t.Down, t.Abstain)
		if t.Override != "" {
			fmt.Fprintln(out, "! "+t.Override)
		}
		w := newTable(out)
		fmt.Fprintln(w, "  OBSERVER\tSITE\tSAYS\tVOTES\tPROBE\tENDED\tTOOK\tIN A ROW")
		for _, o := range t.Observers {
			printObservation(w, o)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if more := r.Matching - len(r.Targets); more > 0 {
		fmt.Fprintf(out, "\n! %s more not shown; name fewer\n", count(more, "target"))
	}
	return nil
}

func printObservation(w *tabwriter.Writer, o admin.Observation) {
	votes := "yes"
	if o.Abstains != "" {
		votes = "no: " + o.Abstains
	}
	fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t", o.Node, o.Site, o.Statement, votes)
	e := o.Evidence
	switch {
	case o.NoAnswer:
		fmt.Fprintln(w, "no answer\t–\t–\t–")
		return
	case e == nil:
		fmt.Fprintln(w, "–\t–\t–\t–")
		return
	}
	var found []string
	if e.Error != "" {
		found = append(found, e.Error)
	} else {
		found = append(found, "ok")
	}
	if e.Code != 0 && !strings.Contains(e.Error, "status") { // the error has said it
		found = append(found, fmt.Sprintf("status %d", e.Code))
	}
	if e.Weight != nil {
		found = append(found, fmt.Sprintf("weight %d %%", *e.Weight))
	}
	if e.Flapping {
		found = append(found, "flapping")
	}
	age := time.Duration(e.AgeSeconds * float64(time.Second)).Round(100 * time.Millisecond)
	fmt.Fprintf(w, "%s\t%s ago\t%s\t%d\n", strings.Join(found, ", "), age, took(e.LatencyMS), e.Streak)
}
