/** Whoever points at a public symbol in an editor is told what it is: every export and every member has a doc comment. */
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const ENTRIES = ['src/index.ts', 'src/engine/index.ts', 'src/testing/index.ts'];

const { config } = ts.readConfigFile(`${root}tsconfig.json`, path => ts.sys.readFile(path)) as { config: object };
const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
const program = ts.createProgram(
  ENTRIES.map(entry => root + entry),
  { ...options, noEmit: true },
);
const checker = program.getTypeChecker();

function textOf(symbol: ts.Symbol): string {
  return ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim();
}

const isInternal = (symbol: ts.Symbol): boolean => symbol.getJsDocTags(checker).some(({ name }) => name === 'internal');

/** A member that users see: neither private, nor the library's own, nor declared by somebody else. */
function isPublic(member: ts.Symbol): boolean {
  const declarations = member.declarations ?? [];
  return declarations.some(
    declaration =>
      declaration.getSourceFile().fileName.startsWith(`${root}src/`) &&
      (ts.getCombinedModifierFlags(declaration) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) === 0 &&
      !isPrivateName(declaration),
  );
}

function isPrivateName(declaration: ts.Declaration): boolean {
  const name = ts.getNameOfDeclaration(declaration);
  return name !== undefined && ts.isPrivateIdentifier(name);
}

/** What an exported symbol has below it: members of classes (static ones, too) and interfaces, not of aliases of other types. */
function membersOf(symbol: ts.Symbol): ts.Symbol[] {
  const members = [...(symbol.members?.values() ?? [])];
  if ((symbol.flags & ts.SymbolFlags.Class) !== 0) members.push(...(symbol.exports?.values() ?? []));
  return members.filter(
    member =>
      (member.flags & (ts.SymbolFlags.TypeParameter | ts.SymbolFlags.Prototype)) === 0 &&
      !member.name.startsWith('#') &&
      isPublic(member),
  );
}

/** A constructor without parameters, or one that implements nothing of its own, needs no words; nor does what is inherited. */
function isDocumented(member: ts.Symbol, owner: ts.Symbol): boolean {
  if (textOf(member) !== '' || isInternal(member)) return true;
  if (member.name === '__constructor' || member.name === '__call' || member.name === '__index') {
    return (member.declarations ?? []).some(declaration => ts.getJSDocCommentsAndTags(declaration).length > 0);
  }
  // An override is shown with the comment of what it implements.
  const type = checker.getDeclaredTypeOfSymbol(owner);
  return (type.getBaseTypes() ?? []).some(base => {
    const inherited = base.getProperty(member.name);
    return inherited !== undefined && textOf(inherited) !== '';
  });
}

function undocumented(entry: string): string[] {
  const source = program.getSourceFile(root + entry);
  const module = source && checker.getSymbolAtLocation(source);
  if (module === undefined) throw new Error(`${entry} is no module`);
  const missing: string[] = [];
  for (const exported of checker.getExportsOfModule(module)) {
    const symbol = (exported.flags & ts.SymbolFlags.Alias) !== 0 ? checker.getAliasedSymbol(exported) : exported;
    if (textOf(symbol) === '') missing.push(exported.name);
    for (const member of membersOf(symbol)) {
      if (!isDocumented(member, symbol)) missing.push(`${exported.name}.${member.name}`);
    }
  }
  return missing;
}

describe('doc comments', () => {
  it.each(ENTRIES)('are there for everything that %s exports, and for its members', entry => {
    expect(undocumented(entry)).toEqual([]);
  });

  it('have an example for every class and every function', () => {
    const lacking: string[] = [];
    for (const entry of ENTRIES) {
      const source = program.getSourceFile(root + entry) as ts.SourceFile;
      for (const exported of checker.getExportsOfModule(checker.getSymbolAtLocation(source) as ts.Symbol)) {
        const symbol = (exported.flags & ts.SymbolFlags.Alias) !== 0 ? checker.getAliasedSymbol(exported) : exported;
        if ((symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Function)) === 0) continue;
        if (!symbol.getJsDocTags(checker).some(({ name }) => name === 'example')) lacking.push(exported.name);
      }
    }
    expect(lacking).toEqual([]);
  });

  it('are missed where they are missing', () => {
    const host = ts.createCompilerHost(options);
    const file = ts.createSourceFile('x.ts', '/** a */ export interface A { b: string }', ts.ScriptTarget.Latest);
    const getSourceFile = (name: string): ts.SourceFile | undefined => (name === 'x.ts' ? file : undefined);
    const small = ts.createProgram(['x.ts'], options, { ...host, getSourceFile }).getTypeChecker();
    const module = small.getSymbolAtLocation(file) as ts.Symbol;
    const [a] = small.getExportsOfModule(module);
    const comments = [...(a?.members?.values() ?? [])].map(member => member.getDocumentationComment(small));
    expect([a?.getDocumentationComment(small).length, comments]).toEqual([1, [[]]]);
  });
});
