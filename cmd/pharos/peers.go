package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// statusVerb is a verb that shows one part of a node's status. It ends with exitDegraded when show says that something
// is not as it should be.
func statusVerb(cmd *cobra.Command, part func(*admin.Status) any, show func(io.Writer, *admin.Status, time.Time) (fine bool, err error)) *cobra.Command {
	var socket, format string
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(cmd, format); err != nil {
			return err
		}
		st, err := findClient(cmd, socket).Status(cmd.Context())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if format == formatJSON {
			out = io.Discard
			if err := writeJSON(cmd.OutOrStdout(), part(st)); err != nil {
				return err
			}
		}
		fine, err := show(out, st, time.Now())
		if err == nil && !fine {
			return errDegraded
		}
		return err
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	return cmd
}

func newPeers() *cobra.Command {
	return statusVerb(&cobra.Command{
		Use:   "peers",
		Short: "Show this node's BGP and BFD sessions",
		Long: `Peers shows the sessions with this site's routers: how far each has come, since when,
BFD beside it, how many routes it was sent, and why it is not up. Exit code 2 means
that a session or its BFD is not up.`,
		Example: "  pharos peers\n  pharos peers -o json | jq '.[].bfd'",
	}, func(st *admin.Status) any {
		if st.Speaker == nil {
			return []admin.PeerStatus{}
		}
		return st.Speaker.Peers
	}, printPeers)
}

func printPeers(out io.Writer, st *admin.Status, now time.Time) (fine bool, err error) {
	if st.Speaker == nil {
		_, err := fmt.Fprintf(out, "node %s has no BGP: bgp.peers names no router of site %s\n", st.Node, st.Site)
		return true, err
	}
	fine = st.Speaker.State == "running"
	if !fine {
		fmt.Fprintf(out, "! the BGP speaker is %s: %s\n", st.Speaker.State, st.Speaker.LastError)
	}
	w := newTable(out)
	fmt.Fprintln(w, "PEER\tASN\tSESSION\tFOR\tBFD\tDETECTS IN\tFAILURES\tSENT\tWHY")
	for _, p := range st.Speaker.Peers {
		state, detects, failures, why := "–", "–", "–", p.LastError
		if p.State != "established" {
			fine = false
		}
		if b := p.BFD; b != nil {
			state, failures = b.State, fmt.Sprint(b.Failures)
			if b.DetectionMS > 0 {
				detects = (time.Duration(b.DetectionMS) * time.Millisecond).String()
			}
			if b.State != "up" {
				fine = false
				why = cmp.Or(why, "BFD: "+b.LastError)
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", p.Address, p.ASN, p.State, since(p.Since, now), state, detects, failures, p.Sent, why)
	}
	return fine, w.Flush()
}

func newRoutes() *cobra.Command {
	return statusVerb(&cobra.Command{
		Use:   "routes",
		Short: "Show what this node announces, and why",
		Long: `Routes shows every prefix of the configuration at this node: whether the plan wants it
announced, whether the speaker holds it, to how many routers it is sent, and the reason.
Whether a router accepted it, BGP does not tell. Exit code 2 means that a prefix is
wanted and not sent to every router.`,
		Example: "  pharos routes\n  pharos routes -o json",
	}, func(st *admin.Status) any {
		if st.Routes == nil {
			return []admin.RouteStatus{}
		}
		return st.Routes
	}, printRoutes)
}

func printRoutes(out io.Writer, st *admin.Status, _ time.Time) (fine bool, err error) {
	established, peers := 0, 0
	if st.Speaker != nil {
		peers = len(st.Speaker.Peers)
		for _, p := range st.Speaker.Peers {
			if p.State == "established" {
				established++
			}
		}
	}
	fine = true
	w := newTable(out)
	fmt.Fprintln(w, "PREFIX\tWANTED\tHELD\tSESSIONS UP\tWHY")
	for _, r := range st.Routes {
		why := r.Why.String()
		switch {
		case r.Error != "":
			why = r.Error
		case r.Announce && !r.Installed:
			why = "the BGP speaker does not hold it yet"
		case r.Announce && r.Why == steer.ReasonNone:
			why = "everything it requires is servable"
		}
		if r.Blame != "" {
			why = "service " + r.Blame + ": " + why
		}
		fine = fine && (!r.Announce || r.Installed && r.Error == "" && established == peers)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%s\n", r.Prefix, yesNo(r.Announce), yesNo(r.Installed), established, peers, with(why, r.Override))
	}
	return fine, w.Flush()
}
