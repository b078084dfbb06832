// Command pharos is a DNS and anycast global load balancer in one binary.
//
// This package holds verbs, flags, signals and exit codes; everything else is
// in the packages it calls. `pharos --help` is the reference.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/config"
)

// version is set by the linker.
var version = "dev"

// Exit codes; part of the interface.
const (
	exitOK       = 0
	exitError    = 1
	exitDegraded = 2 // degraded, or a test of the configuration failed
	exitUsage    = 3
)

// A codedError ends the program with a code of its own.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// errDegraded ends with exitDegraded and says nothing more: the output did.
var errDegraded = codedError{errors.New("degraded"), exitDegraded}

// errPrinted ends with exitError and says nothing more: the output did.
var errPrinted = codedError{errors.New("invalid"), exitError}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends us without waiting
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	return report(stderr, err)
}

// report prints an error the way a person can use it and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var list config.Errors
	var coded codedError
	switch isCoded := errors.As(err, &coded); {
	case coded == errDegraded || coded == errPrinted:
		return coded.code
	case errors.As(err, &list):
		fmt.Fprint(stderr, list.Pretty())
	default:
		fmt.Fprintln(stderr, "pharos: "+err.Error())
		if isCoded {
			return coded.code
		}
	}
	return exitError
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "pharos",
		Short: "DNS and anycast global load balancer",
		Long: `pharos answers DNS by geography and health, announces anycast prefixes over BGP
while the site is healthy, shares health between sites, and forwards the traffic
that arrives to healthy backends. One verdict drives all four.

Exit codes: 0 ok, 1 error, 2 degraded or a failed test, 3 usage.`,
		Example: `  pharos demo                                   three sites on this machine, no root, no config
  pharos validate pharos.yaml                   check a configuration and its tests
  pharos run --config pharos.yaml --node fra1   run a node
  pharos explain www.example.com --from 81.2.69.142`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		Args:              usageArgs(cobra.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.AddCommand(
		newCheck(), newCompiler(), newDemo(), newDoctor(), newExplain(), newKeeper(), newKeys(), newMembers(), newLab(), newOverrides(), newReload(), newRun(), newSchema(), newSpeaker(), newStatus(), newUpgrade(), newValidate(), newVersion(), newPeerConfig(), newPeers(), newRoutes(),
	)
	root.AddCommand(newOrders()...)
	return root
}

// usage marks an error as a wrong call and says where to read on.
func usage(cmd *cobra.Command, err error) error {
	return codedError{fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()), exitUsage}
}

// usageArgs makes a check of the arguments end with the usage code.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
}
