package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/lab"
)

func newLab() *cobra.Command {
	var opts lab.Options
	var config string
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run your own configuration in network namespaces and break it (root)",
		Long: `Lab runs the nodes of a configuration on this machine, each as a real process in a
network namespace of its own, with its own addresses, and with backends, a client
and a network between the sites that can be cut, one way or both. Nothing of the
host is touched but a folder under the temporary directory; a killed lab's
leftovers are removed by the next one, or by "pharos lab clean".`,
		Example: `  sudo pharos lab --config pharos.yaml       up, with routers, and a failover before your eyes
  sudo pharos lab up pharos.yaml
  sudo pharos lab cut fra iad --one-way
  sudo pharos lab heal`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return cmd.Help()
			}
			opts.Failover = &lab.FailoverOptions{Rounds: 1, Users: true}
			return runLab(cmd, opts, config, lab.Run)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "start a lab of this configuration, play a failover in it and keep it until Ctrl-C")
	addLabFleet(cmd, &opts, lab.RoutersMixed)
	cmd.AddCommand(newLabUp(), newLabFailover(), newLabStatus(), newLabDown(), newLabClean(), newLabQuery(), newLabExec(), newLabRun(), newLabChaos())
	cmd.AddCommand(newLabFaults()...)
	return cmd
}

func addLabName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", lab.DefaultID, "the lab's name: 1 to 12 lower case letters and digits")
}

// addLabFleet adds the flags of the verbs that start a lab of their own.
func addLabFleet(cmd *cobra.Command, opts *lab.Options, routers lab.RouterChoice) {
	addLabName(cmd, &opts.ID)
	opts.Routers = routers
	cmd.Flags().Var((*routerFlag)(&opts.Routers), "routers", "what the BGP peers of the configuration are: auto, none, bird, frr or mixed")
	cmd.Flags().StringSliceVar(&opts.Nodes, "nodes", nil, "run only these nodes (default: all)")
	cmd.Flags().StringVar(&opts.Logs, "logs", "", "keep the nodes' logs in this folder")
}

// runLab completes the options and calls f with a context that a closed
// terminal ends too. Once it has ended, further signals are ignored: taking the lab
// down takes seconds at most, and `timeout` and terminals easily send two.
func runLab(cmd *cobra.Command, opts lab.Options, config string, f func(context.Context, lab.Options) error) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	opts.Binary, opts.Program, opts.ConfigFile, opts.Out = binary, programName(), config, cmd.OutOrStdout()
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
	defer stop()
	impatience := make(chan os.Signal, 1) // nobody reads it, to the very end of the process
	signal.Notify(impatience, os.Interrupt, syscall.SIGTERM)
	return f(ctx, opts)
}

func newLabUp() *cobra.Command {
	var opts lab.Options
	cmd := &cobra.Command{
		Use:   "up CONFIG",
		Short: "Start a lab of a configuration and keep it until Ctrl-C",
		Long: `Up starts every node of the configuration, or those of --nodes, shows what runs
and what to try, and takes all of it down when it ends. The configuration is used
as it is; node addresses on loopback are refused. The table says which checks the
lab's backends cannot answer.`,
		Example: "  sudo pharos lab up pharos.yaml\n  sudo pharos lab up pharos.yaml --name two --nodes fra1,iad1",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return runLab(cmd, opts, args[0], lab.Run) },
	}
	addLabFleet(cmd, &opts, lab.RoutersAuto)
	return cmd
}

// routerFlag is a choice of routers on the command line.
type routerFlag lab.RouterChoice

func (f *routerFlag) String() string {
	if *f == routerFlag(lab.RoutersAuto) {
		return "auto"
	}
	return string(*f)
}

func (f *routerFlag) Type() string { return "kind" }

func (f *routerFlag) Set(text string) error {
	c, err := lab.ParseRouterChoice(text)
	*f = routerFlag(c)
	return err
}

func newLabFailover() *cobra.Command {
	var opts lab.Options
	how := lab.FailoverOptions{Rounds: 3}
	var format string
	cmd := &cobra.Command{
		Use:   "failover CONFIG",
		Short: "Break a site in front of real routers and measure what they do",
		Long: `Failover starts a lab with routers and breaks one site in six ways, one after the
other: an order takes its pool down, its backends die, its first node is killed, frozen,
and cut off (BFD), and its BGP speaker is killed. Each time it measures when the routers
of the site have lost the route to the anycast prefix, or the node's share of it, by
the tables that they forward by, and when they have it back. A client goes on
connecting to the anycast address through the transit. Exit code 2 means that
something took longer than it may.`,
		Example: "  sudo pharos lab failover pharos.yaml --rounds 10 -o json",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			return runLab(cmd, opts, args[0], func(ctx context.Context, opts lab.Options) error {
				opts.Out = cmd.ErrOrStderr()
				report, err := lab.RunFailover(ctx, opts, how)
				if report == nil || err != nil {
					return err
				}
				return verdictOut(cmd, format, report, report.Text(), report.OK())
			})
		},
	}
	addLabFleet(cmd, &opts, lab.RoutersMixed)
	addFormat(cmd, &format)
	cmd.Flags().IntVar(&how.Rounds, "rounds", how.Rounds, "how often each thing is broken")
	cmd.Flags().StringVar(&how.Site, "site", "", "where (default: the first site with routers)")
	return cmd
}

func newLabStatus() *cobra.Command {
	var name, format string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the running lab",
		Long:    "Show every node of the running lab, its backends, and what is cut.",
		Example: "  sudo pharos lab status\n  sudo pharos lab status -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := lab.NewClient(name).Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == formatJSON {
				return writeJSON(cmd.OutOrStdout(), st)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), st.Text())
			return err
		},
	}
	addLabName(cmd, &name)
	addFormat(cmd, &format)
	return cmd
}

func newLabDown() *cobra.Command {
	const within = 30 * time.Second
	var name string
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "End the running lab",
		Long:    "End the running lab and wait until nothing of it is left.",
		Example: "  sudo pharos lab down",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			return lab.NewClient(name).Down(ctx)
		},
	}
	addLabName(cmd, &name)
	return cmd
}

func newLabClean() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove what killed labs left behind",
		Long: `Clean removes the processes, namespaces, mounts and files of labs that were killed:
of all of them, or of the one of --name. A running lab is left alone.`,
		Example: "  sudo pharos lab clean",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("name") {
				name = ""
			}
			removed, err := lab.Clean(name)
			for _, id := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed lab "+id)
			}
			return err
		},
	}
	addLabName(cmd, &name)
	return cmd
}

func newLabQuery() *cobra.Command {
	var name, from, format string
	var q lab.Question
	cmd := &cobra.Command{
		Use:   "query NAME [AAAA]",
		Short: "Ask the lab's nodes from a client anywhere",
		Long: `Query asks every node's DNS from the lab's client, which takes on any source
address: --from puts it in the network of a real user.`,
		Example: "  sudo pharos lab query www.example.com --from 81.2.69.142\n  sudo pharos lab query www.example.com AAAA --node fra1",
		Args:    usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			q.Name = args[0]
			if len(args) > 1 {
				if q.IPv6 = strings.EqualFold(args[1], "AAAA"); !q.IPv6 && !strings.EqualFold(args[1], "A") {
					return usage(cmd, fmt.Errorf("type %q: want A or AAAA", args[1]))
				}
			}
			if from != "" {
				if q.From, err = netip.ParseAddr(from); err != nil {
					return usage(cmd, fmt.Errorf("--from %q: want an IP address", from))
				}
			}
			answers, err := lab.NewClient(name).Query(cmd.Context(), q)
			if err != nil {
				return err
			}
			if format == formatJSON {
				return writeJSON(cmd.OutOrStdout(), answers)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NODE\tANSWER\tSITE\tTOOK")
			for _, a := range answers {
				text := strings.Trim(fmt.Sprint(a.Addresses), "[]")
				if text == "" {
					text = a.RCode + a.Error
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Node, text, strings.Join(a.Sites, " "), a.Latency.Round(10*time.Microsecond))
			}
			return w.Flush()
		},
	}
	addLabName(cmd, &name)
	addFormat(cmd, &format)
	cmd.Flags().StringVar(&from, "from", "", "the client's address (default: one of the lab's own)")
	cmd.Flags().StringVar(&q.Node, "node", "", "ask only this node")
	cmd.Flags().BoolVar(&q.Resolver, "resolver", false, "ask the lab's resolver, which asks the nodes and caches their answers")
	return cmd
}

func newLabExec() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENT…]",
		Short: "Run a command in a node's network namespace",
		Long: `Exec runs a command where a node is, or in the namespace "client", "core" or
"SITE-be" (a site's backends). $PHAROS_SOCKET is the node's, so that
"pharos status" asks that node.`,
		Example: "  sudo pharos lab exec fra1 -- pharos status\n  sudo pharos lab exec client -- dig @198.51.100.11 www.example.com",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			return lab.Exec(name, args[0], args[1:])
		},
	}
	addLabName(cmd, &name)
	return cmd
}
