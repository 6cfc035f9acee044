"""Write the self-contained HTML report. In: ``tables``, ``figures`` (PNG and SVG). Out: the report."""

from valleys.execution.jobs import job

with job(snakemake) as log:
    import io
    from pathlib import Path

    from valleys.report import rulegraph
    from valleys.report.page import render
    from valleys.storage import files, tables

    kinds = {Path(path).stem: tables.name_in(path) for path in snakemake.input.tables}
    # What the page gives away is encoded anew: a flipped bit where a file says nothing goes no further.
    data, parquet = {}, {}
    for path in map(Path, snakemake.input.tables):
        table, stream = tables.read(path, kinds[path.stem], fill=False), io.BytesIO()
        tables.encode(table, stream)
        data[path.stem], parquet[path.stem] = table.to_pandas(), stream.getvalue()
    paths = [Path(p) for p in snakemake.input.figures]
    pictures = {path.stem: files.read_svg(path) for path in paths if path.suffix == ".svg"}
    pngs = {path.stem: path.read_bytes() for path in paths if path.suffix == ".png"}
    # Written when the run began (rules/run.smk): no input, as it tells of the jobs and not of their results.
    graph = rulegraph.read(Path(snakemake.output[0]).with_name(rulegraph.FILE))
    about = snakemake.params.config, tables.versions(), kinds
    page = render(data, pictures, *about, parquet=parquet, graph=graph, pngs=pngs)
    files.write_text(snakemake.output[0], page)
    size = len(page.encode("utf-8")) / 1e6
    log.info("%s: %d figures, %d tables, %.1f MB", snakemake.output[0], len(pictures), len(data), size)
