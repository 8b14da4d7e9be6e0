/**
 * Whoever points at a public symbol in an editor is told what it is: in the declarations as they are published, every
 * export and every member has a sentence, and whatever is called or read from a class an example.
 */
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const PUBLISHED = `${root}dist/cjs/`;
const ENTRIES = ['index.d.ts', 'engine/index.d.ts', 'testing/index.d.ts'];

const { config } = ts.readConfigFile(`${root}tsconfig.json`, path => ts.sys.readFile(path)) as { config: object };
const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);

const CALLED = ts.SymbolFlags.Method | ts.SymbolFlags.Function | ts.SymbolFlags.Accessor | ts.SymbolFlags.Constructor;

/** Something that an editor shows: a symbol, or one of several ways to call it. */
type Shown = Pick<ts.Symbol, 'getDocumentationComment' | 'getJsDocTags'>;

/** Looks at everything that some declaration files export. `folder` is where declarations are ours. */
class Reader {
  readonly #checker: ts.TypeChecker;
  readonly #folder: string;
  readonly #missing: string[] = [];

  constructor(checker: ts.TypeChecker, folder: string) {
    this.#checker = checker;
    this.#folder = folder;
  }

  /** What lacks its sentence or its example, of all that a file exports. */
  read(file: ts.SourceFile | undefined): string[] {
    const module = file && this.#checker.getSymbolAtLocation(file);
    if (module === undefined) throw new Error('there is no such module');
    for (const exported of this.#checker.getExportsOfModule(module)) {
      const isAlias = (exported.flags & ts.SymbolFlags.Alias) !== 0;
      this.#readExport(exported.name, isAlias ? this.#checker.getAliasedSymbol(exported) : exported);
    }
    return this.#missing;
  }

  #readExport(name: string, symbol: ts.Symbol): void {
    const isClass = (symbol.flags & ts.SymbolFlags.Class) !== 0;
    this.#look(name, symbol, isClass || (symbol.flags & CALLED) !== 0);
    if (!isClass && (symbol.flags & ts.SymbolFlags.Interface) === 0) return;
    const type = this.#checker.getDeclaredTypeOfSymbol(symbol);
    // Of the type, not of the symbol: members with the name of a well-known symbol are nowhere else.
    const members = [...this.#checker.getPropertiesOfType(type)];
    const constructor = symbol.members?.get(ts.InternalSymbolName.Constructor);
    if (constructor !== undefined) members.push(constructor);
    if (isClass) members.push(...(symbol.exports?.values() ?? []));
    for (const member of members) {
      if (!this.#isPublic(member)) continue;
      const path = `${name}.${nameOf(member)}`;
      this.#look(path, member, isClass || (member.flags & CALLED) !== 0);
      if (isClass && !this.#isDescribedByClass(member, type)) this.#missing.push(`${path}: words of its own`);
      this.#readParts(path, member);
    }
  }

  /** What a member consists of or returns, when that has no name of its own. */
  #readParts(path: string, member: ts.Symbol): void {
    const type = this.#checker.getTypeOfSymbol(member);
    const types = [type, ...type.getCallSignatures().map(signature => signature.getReturnType())];
    for (const part of types.flatMap(each => this.#unnamed(each))) {
      for (const property of this.#checker.getPropertiesOfType(part)) {
        if (this.#isPublic(property))
          this.#look(`${path}.${nameOf(property)}`, property, (property.flags & CALLED) !== 0);
      }
    }
  }

  #unnamed(type: ts.Type): ts.Type[] {
    if (type.isUnion()) return type.types.flatMap(each => this.#unnamed(each));
    if (this.#checker.isArrayType(type))
      return this.#checker.getTypeArguments(type as ts.TypeReference).flatMap(each => this.#unnamed(each));
    return (type.flags & ts.TypeFlags.Object) !== 0 && (type.symbol as ts.Symbol | undefined)?.name === '__type'
      ? [type]
      : [];
  }

  #look(path: string, symbol: ts.Symbol, needsExample: boolean): void {
    const signatures = (symbol.flags & CALLED) === 0 ? [] : this.#checker.getTypeOfSymbol(symbol).getCallSignatures();
    const shown: readonly Shown[] = signatures.length > 1 ? signatures : [symbol];
    if (shown.some(each => this.#words(each) === '' && !isDocumentedConstructor(symbol))) this.#missing.push(path);
    else if (needsExample && shown.some(each => !this.#hasExample(each))) this.#missing.push(`${path}: an example`);
  }

  #words(shown: Shown): string {
    return ts.displayPartsToString(shown.getDocumentationComment(this.#checker)).trim();
  }

  #hasExample(shown: Shown): boolean {
    return shown.getJsDocTags(this.#checker).some(({ name, text }) => name === 'example' && text !== undefined);
  }

  /**
   * An editor shows the comment of what a member implements, of a class or an interface. Whoever reads the declarations
   * finds that of the class by its name; an interface may be far away.
   */
  #isDescribedByClass(member: ts.Symbol, type: ts.Type): boolean {
    if ((member.declarations ?? []).some(declaration => ts.getJSDocCommentsAndTags(declaration).length > 0))
      return true;
    return (type.getBaseTypes() ?? []).some(base => {
      const inherited = base.getProperty(member.name);
      return inherited !== undefined && this.#words(inherited) !== '';
    });
  }

  /** A member that users see: neither private nor declared by somebody else. */
  #isPublic(member: ts.Symbol): boolean {
    return (member.declarations ?? []).some(
      declaration =>
        !ts.isTypeParameterDeclaration(declaration) &&
        declaration.getSourceFile().fileName.startsWith(this.#folder) &&
        (ts.getCombinedModifierFlags(declaration) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) === 0 &&
        !isPrivateName(declaration),
    );
  }
}

/** The first words of a constructor may be those of its parameters. */
function isDocumentedConstructor(symbol: ts.Symbol): boolean {
  if ((symbol.flags & ts.SymbolFlags.Constructor) === 0) return false;
  return (symbol.declarations ?? []).some(declaration => ts.getJSDocCommentsAndTags(declaration).length > 0);
}

function isPrivateName(declaration: ts.Declaration): boolean {
  const name = ts.getNameOfDeclaration(declaration);
  return name !== undefined && ts.isPrivateIdentifier(name);
}

function nameOf(symbol: ts.Symbol): string {
  const [declaration] = symbol.declarations ?? [];
  const name = declaration && ts.getNameOfDeclaration(declaration);
  return name?.getText() ?? 'constructor';
}

/** What lacks something in a declaration file of a few lines. */
function missingIn(text: string): string[] {
  const host = ts.createCompilerHost(options);
  const file = ts.createSourceFile('/x.d.ts', text, ts.ScriptTarget.Latest, true);
  const getSourceFile: ts.CompilerHost['getSourceFile'] = (name, ...rest) =>
    name === '/x.d.ts' ? file : host.getSourceFile(name, ...rest);
  const program = ts.createProgram(['/x.d.ts'], { ...options, types: [] }, { ...host, getSourceFile });
  return new Reader(program.getTypeChecker(), '/x.d.ts').read(file);
}

describe('doc comments', () => {
  const program = ts.createProgram(
    ENTRIES.map(entry => PUBLISHED + entry),
    { ...options, noEmit: true },
  );

  it.each(ENTRIES)('are there for everything that %s exports and for its members, with examples', entry => {
    const reader = new Reader(program.getTypeChecker(), PUBLISHED);
    expect(reader.read(program.getSourceFile(PUBLISHED + entry))).toEqual([]);
  });

  it('are missed where they are missing', () => {
    const text = `
      export interface Bare { member: string; }
      /** An interface. */
      export interface Known {
        /** Words. */
        property: string;
        /** Words. */
        method(): void;
        /** Words. @example known.made() */
        made(): { part: number };
      }
      /** A class. */
      export declare class Lone implements Known {
        /** Words. @example one */
        property: string;
        method(): void;
        /** Words. @example one */
        made(): {
          /** Words. */
          part: number;
        };
        get read(): string;
        /** Words. @example one */
        twice(a: string): void;
        twice(a: number): void;
        [Symbol.iterator](): Iterator<string>;
        static shared(): void;
        private hidden(): void;
      }
      /** A class. @example one */
      export declare class Heir extends Lone {
        read: string;
      }
      /** A function. */
      export declare function call(): void;
    `;
    expect(missingIn(text)).toEqual([
      'call: an example',
      'Bare',
      'Bare.member',
      'Known.method: an example',
      'Known.made.part',
      'Lone: an example',
      'Lone.method: an example',
      'Lone.method: words of its own',
      'Lone.read',
      'Lone.read: words of its own',
      'Lone.twice',
      'Lone.[Symbol.iterator]',
      'Lone.[Symbol.iterator]: words of its own',
      'Lone.shared',
      'Lone.shared: words of its own',
      'Heir.read',
      'Heir.read: words of its own',
      'Heir.method: an example',
      'Heir.twice',
      'Heir.[Symbol.iterator]',
      'Heir.[Symbol.iterator]: words of its own',
    ]);
  });
});
