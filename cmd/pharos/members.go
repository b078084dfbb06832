package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
)

func newMembers() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show the nodes of the cluster",
		Long: `Members shows every node that this one knows of: whether it is heard and counted, and
whether it has the same version, configuration and orders. Exit code 2 means that a
line begins with "!".`,
		Example: "  pharos members\n  pharos members -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := findClient(cmd, socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			troubles := memberTroubles(st)
			if format == formatJSON {
				err = writeJSON(cmd.OutOrStdout(), st.Members)
			} else {
				err = printMembers(cmd.OutOrStdout(), st, troubles)
			}
			if err == nil && len(troubles) > 0 {
				return errDegraded
			}
			return err
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func printMembers(out io.Writer, st *admin.Status, troubles []string) error {
	w := newTable(out)
	fmt.Fprintln(w, "MEMBER\tSITE\tSTATE\tREPORT\tVOTES\tVERSION\tCONFIGURATION\tORDERS\tSIGNED\tSENDS WITH")
	for _, m := range st.Members {
		name, report, votes, orders, key := m.Name, "none", "yes", "same", "no key"
		if m.Self {
			name += " (this)"
		}
		if m.AgeSeconds >= 0 && (m.Heard || m.AgeSeconds > 0) {
			report = time.Duration(m.AgeSeconds*float64(time.Second)).Round(100*time.Millisecond).String() + " old"
		}
		if m.Abstains != "" {
			votes = "no: " + m.Abstains
		}
		if !m.OverridesInSync {
			orders = "differ"
		}
		if len(m.Keys) > 0 {
			key = m.Keys[0]
		}
		if m.State == admin.MemberAbsent {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t–\t–\t–\t–\t–\n", name, m.Site, m.State, report, votes)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			name, m.Site, m.State, report, votes, m.Version, m.Config, orders, yesNo(m.Signed), key)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, t := range troubles {
		fmt.Fprintln(out, "! "+t)
	}
	return nil
}

// memberTroubles says in which nodes something differs from this one.
func memberTroubles(st *admin.Status) (troubles []string) {
	var self admin.MemberStatus
	for _, m := range st.Members {
		if m.Self {
			self = m
		}
	}
	for _, m := range st.Members {
		if m.Self {
			continue
		}
		if !m.Heard {
			troubles = append(troubles, m.Name+" is not heard from")
			continue // what is known of it is old
		}
		if m.Version != self.Version {
			troubles = append(troubles, fmt.Sprintf("%s runs version %s, this node %s", m.Name, m.Version, self.Version))
		}
		if m.Config != self.Config {
			troubles = append(troubles, fmt.Sprintf("%s has configuration %s, this node %s", m.Name, m.Config, self.Config))
		}
		if !m.OverridesInSync {
			troubles = append(troubles, m.Name+" does not hold the same orders")
		}
	}
	if st.Minority {
		troubles = append(troubles, fmt.Sprintf("only %d of %s heard: the verdicts on the others stand as they were", st.Heard, count(st.Sites, "site")))
	}
	if st.Doubt != "" {
		troubles = append(troubles, "this node doubts its own probes: "+st.Doubt)
	}
	return troubles
}
