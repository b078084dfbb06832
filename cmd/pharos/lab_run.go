package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/lab"
)

func newLabRun() *cobra.Command {
	var opts lab.Options
	var format string
	cmd := &cobra.Command{
		Use:   "run SCENARIO CONFIG",
		Short: "Play a script of faults and expectations on a lab",
		Long: `Run starts a lab, plays the script, and takes the lab down. A script has one step a
line:

  at 2s cut fra iad one-way            # any of the lab's faults
  expect within 5s name www.example.com from client is iad
  expect within 30s same plan          # every node serves and decides alike
  at 10s heal
  until 20s
  expect always answered               # 99.99 % of a resolver's queries
  expect never empty
  expect never stale                   # no site that its own nodes know to be down

Times count from the moment at which the fleet is steady; "within" from the "at"
above it. Exit code 2 means that something expected did not come true.`,
		Example: "  sudo pharos lab run cut-fra.txt pharos.yaml\n  sudo pharos lab run cut-fra.txt pharos.yaml -o json",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			script, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read the scenario: %w", err)
			}
			defer script.Close()
			scenario, err := lab.ParseScenario(script)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return runLab(cmd, opts, args[1], func(ctx context.Context, opts lab.Options) error {
				opts.Out = cmd.ErrOrStderr()
				verdict, err := lab.RunScenario(ctx, opts, scenario)
				if verdict == nil || err != nil {
					return err
				}
				return verdictOut(cmd, format, verdict, verdict.Text(), verdict.OK())
			})
		},
	}
	addLabFleet(cmd, &opts, lab.RoutersNone)
	addFormat(cmd, &format)
	return cmd
}

func newLabChaos() *cobra.Command {
	var opts lab.Options
	var chaos lab.ChaosOptions
	var format string
	cmd := &cobra.Command{
		Use:   "chaos CONFIG",
		Short: "Break a lab at random, repeatably, and judge what it does",
		Long: `Chaos plays random schedules of killed, frozen and wiped nodes, cuts in one or both
directions, lost packets, full disks, clocks that jump and backends that fail, each
healed at its end, while a prober outside asks every node without pause. It reports
how many queries were answered, empty answers, answers that name a site which its
own nodes knew to be down for 2 s, and how long all plans took to be the same again.
Each schedule is printed as a script for "pharos lab run". Exit code 2 means that
something did not hold.`,
		Example: "  sudo pharos lab chaos pharos.yaml --schedules 100 --seed 1",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			return runLab(cmd, opts, args[0], func(ctx context.Context, opts lab.Options) error {
				opts.Out = cmd.ErrOrStderr()
				report, err := lab.Chaos(ctx, opts, chaos)
				if report == nil || err != nil {
					return err
				}
				return verdictOut(cmd, format, report, report.Text(), report.OK())
			})
		},
	}
	addLabFleet(cmd, &opts, lab.RoutersNone)
	addFormat(cmd, &format)
	cmd.Flags().IntVar(&chaos.Schedules, "schedules", 10, "how many random schedules")
	cmd.Flags().Uint64Var(&chaos.Seed, "seed", 1, "the first schedule's seed; the next has the next")
	cmd.Flags().BoolVar(&chaos.Orders, "orders", true, "drain and undrain meanwhile, and check that no order is lost or comes back")
	return cmd
}

// verdictOut writes a result and turns it into the exit code.
func verdictOut(cmd *cobra.Command, format string, result any, text string, ok bool) error {
	var err error
	if format == formatJSON {
		err = writeJSON(cmd.OutOrStdout(), result)
	} else {
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
	}
	if err == nil && !ok {
		return errDegraded
	}
	return err
}
