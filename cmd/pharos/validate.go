package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/node"
	"github.com/pharos-lb/pharos/internal/steer"
)

func newValidate() *cobra.Command {
	var name, format string
	var files bool
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a configuration and run its tests",
		Long: `Validate reads the configuration, its zone files and its geo data exactly as "run"
does, reports every mistake with its place, and checks the assertions under
"tests:". Certificates, keys, authorities and error pages are on the nodes: one that
is here and of no use is a warning, with --files every one has to be here and right.
It changes nothing. Exit code 1 means that the configuration is wrong,
2 that it is right but a test failed.`,
		Example: "  pharos validate pharos.yaml\n  pharos validate pharos.yaml --node fra1 -o json",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) == 1 {
				file = args[0]
			}
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			setup, err := node.Load(file, name)
			if err != nil {
				return reportInvalid(cmd, file, err, format)
			}
			if err := checkFiles(setup, files); err != nil {
				return reportInvalid(cmd, file, err, format)
			}
			return runTests(cmd, setup, format)
		},
	}
	cmd.Flags().StringVar(&name, "node", "", "also check that this node exists")
	cmd.Flags().BoolVar(&files, "files", false, "also read certificates, keys and error pages, as the node will")
	addFormat(cmd, &format)
	return cmd
}

// checkFiles reads what the configuration names. What is wrong is an error if all of it has to be here, else a
// warning where it is.
func checkFiles(setup *node.Setup, all bool) error {
	absent, wrong := setup.CheckFiles()
	if all {
		return errors.Join(append(absent, wrong...)...)
	}
	for _, err := range wrong {
		setup.Warnings = append(setup.Warnings, err.Error())
	}
	return nil
}

// A validation is the JSON form of validate's answer.
type validation struct {
	File     string           `json:"file"`
	Hash     string           `json:"hash"`
	Warnings []string         `json:"warnings"`
	Tests    []testValidation `json:"tests"`
	Failed   int              `json:"failed"`
}

type testValidation struct {
	Line   int      `json:"line"`
	OK     bool     `json:"ok"`
	Text   string   `json:"text"`
	Expect []string `json:"expect"`
	Got    []string `json:"got"`
	// Trace explains the answer of a failed test.
	Trace *steer.Explanation `json:"trace,omitempty"`
}

// A mistake is the JSON form of one error, with its place where it has one.
type mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// reportInvalid hands the error to report, or in JSON prints every mistake.
func reportInvalid(cmd *cobra.Command, file string, err error, format string) error {
	if format != formatJSON {
		return err
	}
	var found []mistake
	var list config.Errors
	if errors.As(err, &list) {
		for _, e := range list {
			found = append(found, mistake{e.File, e.Line, e.Column, e.Path, e.Message, e.Hint})
		}
	} else {
		for _, one := range split(err) {
			found = append(found, mistake{File: file, Message: one.Error()})
		}
	}
	if err := writeJSON(cmd.OutOrStdout(), map[string]any{"file": file, "errors": found}); err != nil {
		return err
	}
	return errPrinted
}

// split takes joined errors apart.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func runTests(cmd *cobra.Command, setup *node.Setup, format string) error {
	cfg := setup.Config
	v := validation{File: cfg.File, Hash: fmt.Sprintf("%016x", cfg.Hash), Warnings: append([]string{}, setup.Warnings...), Tests: []testValidation{}}
	for _, t := range cfg.Tests {
		r := steer.Check(setup.Topology, t)
		if !r.OK {
			v.Failed++
		}
		v.Tests = append(v.Tests, testValidation{Line: t.Line, OK: r.OK, Text: r.String(), Expect: t.Expect, Got: r.Got, Trace: r.Explanation})
	}
	if format == formatJSON {
		if err := writeJSON(cmd.OutOrStdout(), v); err != nil {
			return err
		}
	} else {
		printValidation(cmd.OutOrStdout(), cfg, v)
	}
	if v.Failed > 0 {
		return errDegraded
	}
	return nil
}

func printValidation(out io.Writer, cfg *config.Config, v validation) {
	for _, w := range v.Warnings {
		fmt.Fprintln(out, "warning: "+w)
	}
	for _, t := range v.Tests {
		if !t.OK {
			fmt.Fprintf(out, "%s:%d: test failed: %s\n", cfg.File, t.Line, t.Text)
		}
	}
	fmt.Fprintf(out, "%s: %s, %s, %s, %s; %s\n", cfg.File,
		count(len(cfg.Sites), "site"), count(len(cfg.Services), "service"), count(len(cfg.Zones), "zone"),
		count(len(cfg.BGP.Prefixes), "prefix"), testSummary(len(v.Tests), v.Failed))
}

func testSummary(total, failed int) string {
	switch {
	case total == 0:
		return "valid, no tests"
	case failed == 0:
		return "valid, all " + count(total, "test") + " passed"
	}
	return fmt.Sprintf("valid, %d of %s failed", failed, count(total, "test"))
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Long: `Print the JSON Schema of the configuration file. Editors use it through a first line like
  # yaml-language-server: $schema=pharos.schema.json`,
		Example: "  pharos schema > pharos.schema.json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
