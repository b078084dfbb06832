package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/demo"
)

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run three sites on this machine: no root, no configuration",
		Long: `Demo runs a whole fleet on loopback addresses: three sites, each a real node with
two backends and an upstream BGP router. It says what is running and what to try,
and leaves nothing behind when it ends.`,
		Example: "  pharos demo\n  pharos demo break fra\n  pharos demo heal",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			// A closed terminal ends the demo as Ctrl-C does.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			return demo.Run(ctx, demo.Options{Binary: binary, Program: programName(), Out: cmd.OutOrStdout()})
		},
	}
	cmd.AddCommand(newDemoBreak(), newDemoHeal(), newDemoStatus(), newDemoStop())
	return cmd
}

// programName is how the user called us, so that the examples can be pasted.
func programName() string {
	if strings.Contains(os.Args[0], string(filepath.Separator)) {
		return os.Args[0]
	}
	return "pharos"
}

func newDemoBreak() *cobra.Command {
	return &cobra.Command{
		Use:   "break SITE|BACKEND|NODE",
		Short: "Break a part of the running demo",
		Long: `Break a site (both its backends crash), one backend, or a node (its process is
killed with SIGKILL). Watch what the fleet does about it; heal undoes it.`,
		Example: "  pharos demo break fra      # both backends of Frankfurt\n  pharos demo break fra-b1   # one of them\n  pharos demo break fra1     # kill -9 the node",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return say(cmd)(demo.NewClient().Break(cmd.Context(), args[0]))
		},
	}
}

func newDemoHeal() *cobra.Command {
	return &cobra.Command{
		Use:     "heal [SITE|BACKEND|NODE]",
		Short:   "Bring back what was broken",
		Long:    "Bring back a site, a backend or a node; without a name, everything.",
		Example: "  pharos demo heal\n  pharos demo heal fra",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return say(cmd)(demo.NewClient().Heal(cmd.Context(), strings.Join(args, "")))
		},
	}
}

func newDemoStatus() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the running demo",
		Long:    "Show every site of the demo, what its router sees, and what clients are answered.",
		Example: "  pharos demo status\n  pharos demo status -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			st, err := demo.NewClient().Status(cmd.Context())
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
	addFormat(cmd, &format)
	return cmd
}

func newDemoStop() *cobra.Command {
	const within = 30 * time.Second
	return &cobra.Command{
		Use:     "stop",
		Short:   "End the running demo",
		Long:    "End the running demo and wait until nothing of it is left.",
		Example: "  pharos demo stop",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			err := demo.NewClient().Stop(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("the demo did not end within %s", within)
			}
			return err
		},
	}
}

// say prints what was done.
func say(cmd *cobra.Command) func(string, error) error {
	return func(did string, err error) error {
		if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), did)
		}
		return err
	}
}
