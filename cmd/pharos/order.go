package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// An orderVerb is one of the verbs that give orders.
type orderVerb struct {
	verb  string
	order health.Order
	short string
	long  string
}

// scopeHelp is the same for every verb that takes scopes.
const scopeHelp = `

A SCOPE is site/SITE, service/SERVICE, pool/SERVICE/SITE,
backend/SERVICE/SITE/ADDRESS:PORT or prefix/ADDRESS/BITS. "*" and "?" match
within one part: 'pool/*/fra', 'backend/web/fra/*'. A site, a service, or more
than one scope is shown first, with what would change, and asked about; where
nobody can be asked it needs --yes. No scope never means all.

It returns when more than half of the nodes hold the order on disk, or after five
seconds with exit code 2; the order then stands here and spreads on.`

func newOrders() []*cobra.Command {
	verbs := []orderVerb{
		{
			"drain", health.OrderDrain, "Take something out gently, everywhere",
			"Drain gives no new work to the scopes and lets end what is there. It stands until\n\"pharos undrain\", for the time given with --for, and over restarts.",
		},
		{
			"undrain", health.OrderNone, "End an order: follow the checks again",
			"Undrain ends any order on the scopes, those of \"down\" and \"up\" too: what the checks\nsay counts again.",
		},
		{
			"down", health.OrderDown, "Take something out at once, everywhere",
			"Down takes the scopes for down whatever the checks say. Nothing waits for their\nconnections; \"pharos drain\" does. \"pharos undrain\" ends it.",
		},
		{
			"up", health.OrderUp, "Take something for up, whatever its checks say",
			"Up takes the scopes for up whatever the checks say: for a check that is wrong.\n\"pharos undrain\" ends it.",
		},
	}
	cmds := make([]*cobra.Command, len(verbs))
	for i, v := range verbs {
		cmds[i] = newOrder(v)
	}
	return cmds
}

// orderFlags are the flags of a verb that gives orders.
type orderFlags struct {
	request        admin.OverrideRequest
	yes, watch     bool
	socket, format string
}

func newOrder(v orderVerb) *cobra.Command {
	f := orderFlags{request: admin.OverrideRequest{Order: v.order}}
	cmd := &cobra.Command{
		Use:   v.verb + " SCOPE…",
		Short: v.short,
		Long:  v.long + scopeHelp,
		Example: fmt.Sprintf(`  pharos %[1]s pool/web/fra --reason "kernel update"
  pharos %[1]s 'backend/web/fra/*' --dry-run      # what it matches and what would change
  pharos %[1]s site/fra --yes -o json`, v.verb),
		Args: usageArgs(scopeArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	if v.order != health.OrderNone {
		fl.DurationVar(&f.request.For, "for", 0, "how long it stands, like 30m or 2h (default: until undrain)")
		cmd.Example += fmt.Sprintf("\n  pharos %s site/fra --for 2h --reason \"power supply\"", v.verb)
	}
	fl.StringVar(&f.request.Reason, "reason", "", "why, for whoever finds it")
	fl.BoolVar(&f.request.Local, "local", false, "wait for this node's disk only, as when the others are cut off")
	fl.BoolVar(&f.request.Force, "force", false, "even if it breaks a minimum, like a service's min_sites")
	fl.BoolVar(&f.request.DryRun, "dry-run", false, "show what it matches and what would change; change nothing")
	fl.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	switch v.order {
	case health.OrderDrain:
		fl.BoolVarP(&f.watch, "watch", "w", false, "follow the stages until all is drained; Ctrl-C leaves the order standing")
		cmd.Example += "\n  pharos drain site/fra --yes --watch              # until the last connection has ended"
	case health.OrderNone:
		fl.BoolVarP(&f.watch, "watch", "w", false, "follow it until all is back: routes first, then names")
	}
	addSocket(cmd, &f.socket)
	addFormat(cmd, &f.format)
	return cmd
}

// scopeArgs wants at least one scope, each well-formed.
func scopeArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("which scope? like site/fra or 'backend/web/fra/*'; none never means all")
	}
	if len(args) > admin.MaxPatterns {
		return fmt.Errorf("%d scopes, at most %d at once", len(args), admin.MaxPatterns)
	}
	for _, pattern := range args {
		if err := health.CheckScopePattern(pattern); err != nil {
			return err
		}
	}
	return nil
}

func (f *orderFlags) run(cmd *cobra.Command, args []string) error {
	if err := checkFormat(cmd, f.format); err != nil {
		return err
	}
	if f.watch && f.format == formatJSON {
		return usage(cmd, errors.New("--watch prints lines for people, and no JSON: leave one of the two out"))
	}
	if cmd.Flags().Changed("for") {
		if err := health.CheckOverrideFor(f.request.For); err != nil {
			return usage(cmd, fmt.Errorf("--%w", err))
		}
	}
	f.request.Scopes = args
	client := findClient(cmd, f.socket)
	if !f.yes && !f.request.DryRun {
		if err := f.preview(cmd, client); err != nil {
			return err
		}
	}
	result, err := client.Override(cmd.Context(), f.request)
	if err != nil {
		return err
	}
	if f.format == formatJSON {
		err = writeJSON(cmd.OutOrStdout(), result)
	} else {
		err = printOrder(cmd.OutOrStdout(), result)
	}
	switch {
	case err != nil:
		return err
	case f.watch && !result.DryRun:
		if err := follow(cmd.Context(), client, cmd.OutOrStdout(), result); err != nil {
			return err
		}
	}
	switch {
	case result.DryRun && len(result.Breaks) > 0 && !f.request.Force, !result.DryRun && !result.Held():
		return errDegraded
	}
	return nil
}

// preview finds out what the patterns match. More than one scope, and what has
// others in it, is shown and asked about. What was shown is then ordered, not
// whatever the patterns match by the time of the answer.
func (f *orderFlags) preview(cmd *cobra.Command, client *admin.Client) error {
	request := f.request
	request.DryRun = true
	result, err := client.Override(cmd.Context(), request)
	if err != nil {
		return err
	}
	switch n := len(result.Matched); {
	case n == 0: // nothing to clear: nor is what may match by the next call
		f.request.DryRun = true
	case n <= admin.MaxPatterns:
		f.request.Scopes = nil
		for _, m := range result.Matched {
			f.request.Scopes = append(f.request.Scopes, m.Scope)
		}
	}
	if !wide(result.Matched) {
		return nil
	}
	out := cmd.ErrOrStderr()
	if err := printOrder(out, result); err != nil {
		return err
	}
	if len(result.Breaks) > 0 && !f.request.Force {
		return errors.New("it would break a minimum, so nothing was ordered; add --force if it must be")
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usage(cmd, errors.New("nobody is there to ask, so nothing was ordered; add --yes if this is meant"))
	}
	if !confirm(in, out) {
		return errors.New("nothing was ordered")
	}
	return nil
}

// wide reports whether an order concerns more than one thing.
func wide(matched []admin.OverrideMatch) bool {
	return len(matched) > 1 || slices.ContainsFunc(matched, func(m admin.OverrideMatch) bool {
		return strings.HasPrefix(m.Scope, health.ScopeSite.String()+"/") || strings.HasPrefix(m.Scope, health.ScopeService.String()+"/")
	})
}

// confirm asks; only "y" and "yes" mean yes.
func confirm(in io.Reader, out io.Writer) bool {
	fmt.Fprint(out, "Go ahead? [y/N] ")
	line, _ := bufio.NewReader(in).ReadString('\n') // an end without a line is a no
	word := strings.ToLower(strings.TrimSpace(line))
	return word == "y" || word == "yes"
}

// orderWords are what an order does to a scope, before and after the fact.
func orderWords(o health.Order) (would, did string) {
	switch o {
	case health.OrderDrain:
		return "would drain", "drained"
	case health.OrderDown:
		return "would take down", "taken down"
	case health.OrderUp:
		return "would hold up", "held up"
	default:
		return "would follow its checks", "follows its checks"
	}
}

func printOrder(out io.Writer, r *admin.OverrideResult) error {
	w := newTable(out)
	would, did := orderWords(r.Order)
	if r.DryRun {
		did = would
	}
	for _, m := range r.Matched {
		before := "nothing stands"
		if m.Standing != nil {
			before = "before: " + m.Standing.Text()
		}
		fmt.Fprintf(w, "%s\t%s\t(%s)\n", did, m.Scope, before)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Matched) == 0 {
		fmt.Fprintln(out, "no order was ever given on any of what it matches")
	}
	for _, e := range r.Effects {
		fmt.Fprintln(out, "  "+e)
	}
	if len(r.Effects) == 0 {
		fmt.Fprintln(out, "  nothing changes for users")
	}
	for _, b := range r.Breaks {
		fmt.Fprintln(out, "! "+b)
	}
	switch {
	case r.DryRun:
	case r.Local && !r.Held():
		fmt.Fprintf(out, "! not on this node's disk after %s: it stands, but is lost if this node ends before it is; see `pharos status`\n", took(r.TookMS))
	case r.Local && r.Durable:
		fmt.Fprintf(out, "held by this node after %s; it spreads to the others as they are reached\n", took(r.TookMS))
	case r.Majority():
		fmt.Fprintf(out, "acknowledged by %d of %s in %s\n", r.Acknowledged, count(r.Of, "node"), took(r.TookMS))
	default:
		fmt.Fprintf(out, "! acknowledged by only %d of %s in %s: it stands here and spreads as the others are reached; see `pharos overrides`\n",
			r.Acknowledged, count(r.Of, "node"), took(r.TookMS))
	}
	return nil
}

// took writes milliseconds as a person would.
func took(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}
