// attic: look at a store, measure it, and see the whole system work (`attic demo`).
#include "client/cli/command_line.h"

int main(int argc, char** argv) { return attic::cli::RunCommandLine(argc, argv); }
