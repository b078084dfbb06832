package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/doctor"
	"github.com/pharos-lb/pharos/internal/node"
)

// doctorFlags are the flags of doctor.
type doctorFlags struct {
	socket, format, name string
	only                 []string
	open, quiet          bool
	timeout              time.Duration
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [FILE]",
		Short: "Look for what is wrong with this node, and say why and what to do",
		Long: `Doctor looks at this node from its own machine: the configuration on disk and in force,
the process, the cluster, and BGP: the source addresses, privileges, VIPs, each router
(TCP port, TCP MD5 password, AS number, distance, TTL security, families, BFD) and each
prefix on its way to the routers. It changes nothing.

It asks the node that runs here; without one it looks at what can be seen without it, and
needs FILE and --node. Routers with a session are left in peace. The others are connected
to, and what they say first is read. Our OPEN is said to them in two cases only: to a router
that has refused the running node's, while its session is idle or active, to hear why; and,
with --open, while no node runs, to see whether the router takes it. Some routers then make the next session wait, BIRD for a
minute. Where a node runs that does not answer, no router is connected to.

Exit code 2 means that there is a problem.`,
		Example: "  pharos doctor\n  pharos doctor pharos.yaml --node fra1      # before it runs\n  pharos doctor --only bgp -o json | jq '.findings[] | select(.level == \"problem\")'",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := ""
			if len(args) == 1 {
				file = args[0]
			}
			return f.run(cmd, file)
		},
	}
	addSocket(cmd, &f.socket)
	addFormat(cmd, &f.format)
	cmd.Flags().StringVar(&f.name, "node", "", "the node's name (default: the one that runs here, or the host's name)")
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "only these checks: "+strings.Join(doctor.Names(), ", "))
	cmd.Flags().BoolVar(&f.open, "open", false, "say OPEN to routers while no node runs, to see whether they take it")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "show problems only")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 4*time.Second, "how long to wait for each connection")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command, file string) error {
	if err := checkFormat(cmd, f.format); err != nil {
		return err
	}
	for _, name := range f.only {
		if !slices.Contains(doctor.Names(), name) {
			return usage(cmd, fmt.Errorf("--only %q: want some of %s", name, strings.Join(doctor.Names(), ", ")))
		}
	}
	if f.timeout < 100*time.Millisecond || f.timeout > time.Minute {
		return usage(cmd, fmt.Errorf("--timeout %s: want 100ms to 1m", f.timeout))
	}
	c, err := f.load(cmd, file)
	if err != nil {
		return err
	}
	report := doctor.Run(cmd.Context(), c)
	if f.quiet {
		report.Findings = slices.DeleteFunc(report.Findings, func(x doctor.Finding) bool { return x.Level != doctor.Problem })
	}
	if f.format == formatJSON {
		err = writeJSON(cmd.OutOrStdout(), report)
	} else {
		err = printDoctor(cmd.OutOrStdout(), report)
	}
	if err == nil && report.Worst() == doctor.Problem {
		return errDegraded
	}
	return err
}

// load finds the node that runs here, and the configuration: the one that is named, or the running node's.
func (f *doctorFlags) load(cmd *cobra.Command, file string) (doctor.Case, error) {
	status, trouble, err := f.ask(cmd)
	if err != nil {
		return doctor.Case{}, err
	}
	name := f.name
	if status != nil {
		name, file = cmp.Or(name, status.Node), cmp.Or(file, status.Config.File)
	}
	if name == "" {
		name, _ = os.Hostname()
	}
	setup, err := node.Load(cmp.Or(file, defaultConfig), name)
	if err != nil {
		return doctor.Case{}, err
	}
	if status != nil && status.Node != name {
		status = nil // another node's
	}
	return doctor.Case{
		Setup: setup, Status: status, Trouble: trouble, Machine: doctor.Here(), Only: f.only, Open: f.open, Timeout: f.timeout,
	}, nil
}

// ask asks the node that runs here. That none does is no trouble.
func (f *doctorFlags) ask(cmd *cobra.Command) (status *admin.Status, trouble, err error) {
	status, err = findClient(cmd, f.socket).Status(cmd.Context())
	switch {
	case err == nil:
		return status, nil, nil
	case cmd.Context().Err() != nil:
		return nil, nil, err
	case errors.Is(err, admin.ErrNotRunning):
		return nil, nil, nil
	}
	return nil, err, nil
}

func printDoctor(out io.Writer, r doctor.Report) error {
	var b strings.Builder
	before := ""
	for _, f := range r.Findings {
		if f.Check != before {
			if before != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s\n", f.Check)
			before = f.Check
		}
		fmt.Fprintf(&b, "  %-8s %s: %s\n", f.Level, f.Subject, f.Found)
		if f.Why != "" {
			fmt.Fprintf(&b, "           why: %s\n", f.Why)
		}
		if f.Do != "" {
			fmt.Fprintf(&b, "           do:  %s\n", f.Do)
		}
	}
	counts := map[doctor.Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
	}
	if before != "" {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s at %s: %s, %s\n", r.Node, r.Site, count(counts[doctor.Problem], "problem"), count(counts[doctor.Note], "note"))
	_, err := io.WriteString(out, b.String())
	return err
}
